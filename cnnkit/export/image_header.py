"""Read the size of an image from the header of its file, inside a graph.

A decoder allocates the size that the header declares. The functions here read the header first and
refuse files that are too large, too short or of another format before a decoder runs. Error texts
hold no bytes of the request: gRPC clients expect UTF-8.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import tensorflow as tf

from cnnkit.data.graph_checks import ByteReader, assert_or_invalid_argument, with_dependencies
from cnnkit.errors import UsageError

# A larger side would overflow 32 bits when the image is rescaled.
MAX_SIDE = 65_535
# Bytes of a file that are read; only JPEG and GIF store their size after them.
HEADER_WINDOW = 64
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WebP")
# The shortest header of each format that holds the size.
HEADER_BYTES = (4, 33, 13, 54, 30)

# Largest number of data blocks before the end of a GIF file's first frame. A full block holds 255
# bytes, as writers fill them: 4 MB.
MAX_BLOCKS = 16_384
EXTENSION, FRAME, END = 0x21, 0x2C, b"\x3b"
SCREEN_BYTES = 13

BMP_INFO_BYTES = 40
BMP_BITS = (8, 24, 32)
# Uncompressed, without or with masks of the colors: TensorFlow supports no other compression, but
# does not refuse it.
BMP_COMPRESSIONS = (0, 3)


@dataclass(frozen=True)
class ImageLimits:
    """Sizes that an exported network refuses before it decodes an image.

    A file of a few kilobytes can decode to gigabytes; the limits bound the cost of a request.

    Attributes:
        images: Largest number of images in one request.
        file_bytes: Largest encoded image, in bytes.
        pixels: Largest encoded image, in pixels: height times width.
        request_pixels: Largest number of pixels of all encoded images of one request together.
        free_pixels: Largest number of pixels of all `images` of one request together, for a fully
            convolutional network. Its feature maps are many times larger than the images: about
            3 kB a pixel for VGG-16.

    Raises:
        UsageError: If a limit is below 1.

    Example:
        >>> from cnnkit.export import ImageLimits
        >>> ImageLimits(pixels=4_000_000).file_bytes
        20971520
    """

    images: int = 256
    file_bytes: int = 20 << 20
    pixels: int = 50_000_000
    free_pixels: int = 2048 * 2048
    request_pixels: int = 1_000_000_000

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise UsageError(f"`{name}` must be 1 or more", received=value)


def validate_image_bytes(data: tf.Tensor, limits: ImageLimits) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the bytes of an image file after checking that they are cheap to decode.

    Call it while a graph is traced. Animated GIF files are cut after their first frame.

    Args:
        data: () string.
        limits: Sizes that are refused.

    Returns:
        The file, () string, and its number of pixels, () int64; both depend on every check.

    Raises:
        tf.errors.InvalidArgumentError: When the graph runs, if the file is too large, of another
            format, shorter than its header, or has no pixels or too many.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.export import ImageLimits
        >>> from cnnkit.export.image_header import validate_image_bytes
        >>> png = tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8))
        >>> validate = tf.function(lambda data: validate_image_bytes(data, ImageLimits()))
        >>> file, pixels = validate(png)
        >>> bool(file == png), int(pixels)
        (True, 24)
    """
    length = tf.strings.length(data)
    small = assert_or_invalid_argument(
        length <= limits.file_bytes,
        "the file has {} bytes, and may have {}",
        length,
        limits.file_bytes,
    )
    [data] = with_dependencies(small, data)
    # Padded with zeros, so that no read goes past the end: TensorFlow's error for that quotes the
    # bytes.
    padded = tf.strings.join([tf.strings.substr(data, 0, HEADER_WINDOW), b"\0" * HEADER_WINDOW])
    header = ByteReader(tf.strings.substr(padded, 0, HEADER_WINDOW))
    formats = _match_formats(header)
    known = assert_or_invalid_argument(
        tf.reduce_any(formats),
        f"the file is none of {', '.join(FORMATS[:-1])} and {FORMATS[-1]}",
    )
    index = tf.argmax(formats, output_type=tf.int32)
    least = tf.gather(HEADER_BYTES, index)
    whole = assert_or_invalid_argument(
        length >= least,
        "the file has {} bytes, too few for its header of {}",
        length,
        least,
    )
    data, index = with_dependencies([known, whole], data, index)
    data, sides = tf.switch_case(
        index,
        [
            lambda: (data, tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.int64)),
            lambda: (data, tf.stack([header.big_endian(20, 4), header.big_endian(16, 4)])),
            lambda: first_frame(data),
            lambda: (data, _bmp_size(header)),
            lambda: (data, _webp_size(header)),
        ],
    )
    fits = assert_or_invalid_argument(
        (tf.reduce_min(sides) >= 1)
        & (tf.reduce_max(sides) <= MAX_SIDE)
        & (tf.reduce_prod(sides) <= limits.pixels),
        "the image has {} x {} pixels (height x width), and may have 1 to "
        f"{MAX_SIDE} on a side and {{}} in all",
        sides[0],
        sides[1],
        limits.pixels,
    )
    return tuple(with_dependencies(fits, data, tf.reduce_prod(sides)))


def _match_formats(header: ByteReader) -> tf.Tensor:
    """Returns (5,) bool: True at the index in `FORMATS` of the file's format."""
    return tf.stack(
        [
            header.matches(0, b"\xff\xd8\xff"),
            header.matches(0, b"\x89PNG\r\n\x1a\n") & header.matches(12, b"IHDR"),
            header.matches(0, b"GIF87a") | header.matches(0, b"GIF89a"),
            header.matches(0, b"BM"),
            header.matches(0, b"RIFF") & header.matches(8, b"WEBP"),
        ]
    )


def _bmp_size(header: ByteReader) -> tf.Tensor:
    """Returns (2,) int64: height and width of a BMP file."""
    readable = assert_or_invalid_argument(
        (header.little_endian(14, 4) >= BMP_INFO_BYTES)
        & tf.reduce_any(header.little_endian(28, 2) == BMP_BITS)
        & tf.reduce_any(header.little_endian(30, 4) == BMP_COMPRESSIONS),
        "a BMP file must have 8, 24 or 32 bits a pixel and no compression; it has {} bits and "
        "compression {}",
        header.little_endian(28, 2),
        header.little_endian(30, 4),
    )
    # A negative height means that the rows begin at the top.
    height, width = header.signed(22), header.signed(18)
    return with_dependencies(readable, tf.stack([tf.abs(height), width]))[0]


def _webp_size(header: ByteReader) -> tf.Tensor:
    """Returns (2,) int64: height and width of a WebP file, which has one of three headers."""
    lossy = header.matches(12, b"VP8 ") & header.matches(23, b"\x9d\x01\x2a")
    lossless = header.matches(12, b"VP8L") & header.matches(20, b"\x2f")
    extended = header.matches(12, b"VP8X")
    bits, fourteen = header.little_endian(21, 4), 2**14
    sides = tf.where(
        lossy,
        [header.little_endian(28, 2) % fourteen, header.little_endian(26, 2) % fourteen],
        tf.where(
            lossless,
            [bits // fourteen % fourteen + 1, bits % fourteen + 1],
            # The decoder refuses a frame of another size.
            [header.little_endian(27, 3) + 1, header.little_endian(24, 3) + 1],
        ),
    )
    known = assert_or_invalid_argument(
        lossy | lossless | extended, "a WebP file has no size in its header"
    )
    return with_dependencies(known, sides)[0]


def first_frame(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a GIF file cut after its first frame, and the size of the image.

    TensorFlow decodes every frame of an animation to return the first one, and a frame may be
    larger than the screen that the file's header declares.

    Args:
        data: () string, at least `SCREEN_BYTES` long.

    Returns:
        The file, () string, and (2,) int64: height and width of the union of screen and frame.

    Raises:
        tf.errors.InvalidArgumentError: If the first frame is incomplete or has too many blocks.

    Example:
        >>> from cnnkit.export.image_header import first_frame
        >>> still = bytes.fromhex("474946383961 0300 0200 00 00 00" "2c 0000 0000 0300 0200 00"
        ...                       "02 03 8c9d05 00")
        >>> first_frame(still + b"more")[0].numpy() == still + b";"
        True
    """
    file = ByteReader(data)
    length = tf.size(file.values)
    screen = tf.stack([file.little_endian(8, 2), file.little_endian(6, 2)])

    def read(offset: tf.Tensor | int) -> tf.Tensor:
        # 0 past the end; every loop below stops at a 0.
        return tf.where(offset < length, file.byte(tf.minimum(offset, length - 1)), 0)

    def end_of_blocks(offset: tf.Tensor, blocks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Walks from the first block of a chain to the offset after its end."""
        offset, blocks = tf.while_loop(
            lambda offset, blocks: (read(offset) > 0) & (blocks < MAX_BLOCKS),
            lambda offset, blocks: (offset + 1 + tf.cast(read(offset), tf.int32), blocks + 1),
            (offset, blocks),
        )
        return offset + 1, blocks

    def is_extension(offset: tf.Tensor, blocks: tf.Tensor) -> tf.Tensor:
        return (read(offset) == EXTENSION) & (blocks < MAX_BLOCKS)

    offset = SCREEN_BYTES + _color_table_bytes(read(10))
    offset, blocks = tf.while_loop(
        is_extension,
        # Extensions count as blocks, so that a file of empty ones ends the loop.
        lambda offset, blocks: end_of_blocks(offset + 2, blocks + 1),
        (offset, tf.constant(0)),
    )
    found = assert_or_invalid_argument(
        (read(offset) == FRAME) & (offset + 10 < length),
        "a GIF file has no picture near its start",
    )
    offset, blocks = with_dependencies(found, offset, blocks)
    left, top, width, height = (file.little_endian(offset + 1 + 2 * i, 2) for i in range(4))
    # After the color table of the frame and the byte of its code size.
    end, blocks = end_of_blocks(offset + 11 + _color_table_bytes(read(offset + 9)), blocks)
    whole = assert_or_invalid_argument(
        (end <= length) & (blocks < MAX_BLOCKS),
        "the first picture of a GIF file is not whole, or has too many blocks",
    )
    cut = tf.strings.join([tf.strings.substr(data, 0, end), END])
    return tuple(
        with_dependencies(whole, cut, tf.maximum(screen, tf.stack([top + height, left + width])))
    )


def _color_table_bytes(packed: tf.Tensor) -> tf.Tensor:
    """Returns the size of a color table, from the byte that declares it."""
    size = tf.gather([3 * 2 ** (1 + bits) for bits in range(8)], packed % 8)
    return tf.where(packed >= 128, size, 0)

"""How large an image is, read from the first bytes of its file inside the graph.

A decoder allocates what the header promises. So the header is read here first, byte by byte, and
what is too large, too short or of another format never reaches a decoder. The texts of these errors
hold numbers and words of ours, never bytes of the request: gRPC's clients expect UTF-8.
"""

from __future__ import annotations

import tensorflow as tf

from cnnkit.export.graph_checks import (
    LONGEST_SIDE,
    ByteReader,
    ImageLimits,
    assert_or_invalid_argument,
    with_dependencies,
)

# Blocks that are walked through in search of the picture's end. They hold 255 bytes each where they
# are full, as writers leave them: 4 MB.
MOST_BLOCKS = 16_384
EXTENSION, PICTURE, END = 0x21, 0x2C, b"\x3b"
SCREEN_BYTES = 13


def first_frame(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a GIF file without what follows its first picture, and how large it is.

    Args:
        data: () string, at least `SCREEN_BYTES` long.

    Returns:
        The file, () string, and (2,) int64: height and width of what screen and picture cover.

    Raises:
        tf.errors.InvalidArgumentError: If there is no whole picture, or it has too many blocks.

    Example:
        >>> from cnnkit.export.image_header import first_frame
        >>> still = bytes.fromhex("474946383961 0300 0200 00 00 00" "2c 0000 0000 0300 0200 00"
        ...                       "02 03 8c9d05 00")
        >>> first_frame(still + b"more")[0].numpy() == still + b";"
        True
    """
    file = ByteReader(data)
    length = tf.size(file.values)
    screen = tf.stack([file.little(8, 2), file.little(6, 2)])

    def read(place):
        # Past the end nothing is there; what reads a zero there stops.
        return tf.where(place < length, file.at(tf.minimum(place, length - 1)), 0)

    def end_of_blocks(place, blocks):
        """Walks from the first block of a chain to the place behind its end."""
        place, blocks = tf.while_loop(
            lambda place, blocks: (read(place) > 0) & (blocks < MOST_BLOCKS),
            lambda place, blocks: (place + 1 + tf.cast(read(place), tf.int32), blocks + 1),
            (place, blocks),
        )
        return place + 1, blocks

    def is_extension(place, blocks):
        return (read(place) == EXTENSION) & (blocks < MOST_BLOCKS)

    place = SCREEN_BYTES + _table_bytes(read(10))
    place, blocks = tf.while_loop(
        is_extension,
        # Counted too, or a file of empty extensions would be walked through without end.
        lambda place, blocks: end_of_blocks(place + 2, blocks + 1),
        (place, tf.constant(0)),
    )
    found = assert_or_invalid_argument(
        (read(place) == PICTURE) & (place + 10 < length), "a GIF file has no picture near its start"
    )
    place, blocks = with_dependencies(found, place, blocks)
    left, top, width, height = (file.little(place + 1 + 2 * i, 2) for i in range(4))
    # Behind the picture's table of colors and the byte for its code size.
    end, blocks = end_of_blocks(place + 11 + _table_bytes(read(place + 9)), blocks)
    whole = assert_or_invalid_argument(
        (end <= length) & (blocks < MOST_BLOCKS),
        "the first picture of a GIF file is not whole, or has too many blocks",
    )
    cut = tf.strings.join([tf.strings.substr(data, 0, end), END])
    return tuple(
        with_dependencies(whole, cut, tf.maximum(screen, tf.stack([top + height, left + width])))
    )


def _table_bytes(packed: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of a table of colors, from the byte that tells whether there is one."""
    size = tf.gather([3 * 2 ** (1 + bits) for bits in range(8)], packed % 8)
    return tf.where(packed >= 128, size, 0)


# Bytes of a file that are looked at; only JPEG and GIF keep their size further back.
HEAD = 64

# Of the formats, in this order, the least bytes that hold the size.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WebP")
HEADER_BYTES = (4, 33, 13, 54, 30)

BMP_INFO_BYTES = 40
BMP_BITS = (8, 24, 32)
# Uncompressed, with or without masks for the colors: TensorFlow reads no other, but would try.
BMP_PLAIN = (0, 3)


def validate_image_bytes(data: tf.Tensor, limits: ImageLimits) -> tf.Tensor:
    """Returns the bytes of an image file, once it is sure that decoding them is cheap.

    To be called while a graph is traced. Of an animated GIF only the first picture is left, because
    TensorFlow would decode all of them to return one.

    Args:
        data: () string.
        limits: What is refused.

    Returns:
        () string, which depends on every check.

    Raises:
        tf.errors.InvalidArgumentError: When the graph runs, if the file is too large, of another
            format, too short for its header, without pixels or with too many.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.export import ImageLimits
        >>> from cnnkit.export.image_header import validate_image_bytes
        >>> png = tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8))
        >>> bool(tf.function(lambda data: validate_image_bytes(data, ImageLimits()))(png) == png)
        True
    """
    length = tf.strings.length(data)
    small = assert_or_invalid_argument(
        length <= limits.file_bytes,
        "an image file has too many bytes; it has, and may have:",
        length,
        limits.file_bytes,
    )
    [data] = with_dependencies(small, data)
    # Continued by zeros, so that no read goes past the end: TensorFlow's error for that would quote
    # the bytes.
    start = tf.strings.join([tf.strings.substr(data, 0, HEAD), b"\0" * HEAD])
    head = ByteReader(tf.strings.substr(start, 0, HEAD))
    kind = _kind(head)
    known = assert_or_invalid_argument(
        tf.reduce_any(kind), f"an image file is none of {', '.join(FORMATS[:-1])} and {FORMATS[-1]}"
    )
    which = tf.argmax(kind, output_type=tf.int32)
    least = tf.gather(HEADER_BYTES, which)
    whole = assert_or_invalid_argument(
        length >= least,
        "an image file is too short for its header; its bytes, and at least:",
        length,
        least,
    )
    data, which = with_dependencies([known, whole], data, which)
    data, sides = tf.switch_case(
        which,
        [
            lambda: (data, tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.int64)),
            lambda: (data, tf.stack([head.big(20, 4), head.big(16, 4)])),
            lambda: first_frame(data),
            lambda: (data, _bmp(head)),
            lambda: (data, _webp(head)),
        ],
    )
    fits = assert_or_invalid_argument(
        (tf.reduce_min(sides) >= 1)
        & (tf.reduce_max(sides) <= LONGEST_SIDE)
        & (tf.reduce_prod(sides) <= limits.pixels),
        f"an image has no pixels, a side above {LONGEST_SIDE}, or too many pixels; its height, "
        "its width, and the pixels it may have:",
        sides[0],
        sides[1],
        limits.pixels,
    )
    return with_dependencies(fits, data)[0]


def _kind(head: ByteReader) -> tf.Tensor:
    """Returns which of `FORMATS` the file begins like, (5,) bool, none or one of them true."""
    return tf.stack(
        [
            head.has(0, b"\xff\xd8\xff"),
            head.has(0, b"\x89PNG\r\n\x1a\n") & head.has(12, b"IHDR"),
            head.has(0, b"GIF87a") | head.has(0, b"GIF89a"),
            head.has(0, b"BM"),
            head.has(0, b"RIFF") & head.has(8, b"WEBP"),
        ]
    )


def _bmp(head: ByteReader) -> tf.Tensor:
    readable = assert_or_invalid_argument(
        (head.little(14, 4) >= BMP_INFO_BYTES)
        & tf.reduce_any(head.little(28, 2) == BMP_BITS)
        & tf.reduce_any(head.little(30, 4) == BMP_PLAIN),
        "a BMP file is compressed, or has not 8, 24 or 32 bits a pixel; its bits, and compression:",
        head.little(28, 2),
        head.little(30, 4),
    )
    # The height is below zero where the rows begin at the top.
    height, width = head.signed(22), head.signed(18)
    return with_dependencies(readable, tf.stack([tf.abs(height), width]))[0]


def _webp(head: ByteReader) -> tf.Tensor:
    """Returns the height and width that a WebP file tells in one of its three ways."""
    lossy = head.has(12, b"VP8 ") & head.has(23, b"\x9d\x01\x2a")
    lossless = head.has(12, b"VP8L") & head.has(20, b"\x2f")
    extended = head.has(12, b"VP8X")
    bits, fourteen = head.little(21, 4), 2**14
    sides = tf.where(
        lossy,
        [head.little(28, 2) % fourteen, head.little(26, 2) % fourteen],
        tf.where(
            lossless,
            [bits // fourteen % fourteen + 1, bits % fourteen + 1],
            # The decoder refuses pictures inside that are of another size.
            [head.little(27, 3) + 1, head.little(24, 3) + 1],
        ),
    )
    told = assert_or_invalid_argument(
        lossy | lossless | extended, "a WebP file does not tell its size"
    )
    return with_dependencies(told, sides)[0]

"""Read the size of an image from the header of its file, inside a graph.

A decoder allocates the size that the header declares. The functions here read the header first and
refuse files that are too large, too short or of another format before a decoder runs. Error texts
hold no bytes of the request: gRPC clients expect UTF-8.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import tensorflow as tf

from cnnkit.data.animation import first_gif_frame, webp_sides
from cnnkit.data.bmp import check_bmp_header, read_bmp_header
from cnnkit.data.graph_checks import (
    ByteReader,
    assert_or_invalid_argument,
    check_sides,
    read_head,
    with_dependencies,
)
from cnnkit.data.png import png_sides
from cnnkit.errors import UsageError

# Bytes of a file that are read; only JPEG and GIF store their size after them.
HEADER_WINDOW = 64
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WebP")
# The shortest header of each format that holds the size.
HEADER_BYTES = (4, 33, 13, 26, 30)


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

    Call it while a graph is traced.

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
    header = read_head(data, 0, HEADER_WINDOW)
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
    sides = tf.switch_case(
        index,
        [
            lambda: tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.int64),
            lambda: png_sides(data),
            # The size of a GIF file includes its first frame, which may be larger than its header
            # says.
            lambda: first_gif_frame(data).canvas,
            lambda: _bmp_sides(data),
            lambda: webp_sides(header),
        ],
    )
    fits = check_sides(sides, limits.pixels)
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


def _bmp_sides(data: tf.Tensor) -> tf.Tensor:
    header = read_bmp_header(data)
    [width] = with_dependencies(check_bmp_header(header), header.width)
    return tf.stack([header.height, width])

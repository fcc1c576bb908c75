"""EXIF orientation of image files, as TensorFlow graph functions.

A camera stores the pixels as its sensor lies, and the EXIF data of the file say how to turn them
(Exif 2.32, section 4.6.4). Orientation 1 is upright; 2, 3 and 4 are flipped horizontally, both
ways, and vertically; 5 to 8 are transposed, and then flipped not at all, horizontally, both ways,
and vertically.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from cnnkit.data.graph_checks import (
    ByteReader,
    assert_or_invalid_argument,
    read_head,
    with_dependencies,
)

UPRIGHT = 1
# For each orientation, from 0 on: whether the image is transposed, and whether its rows and its
# columns are flipped afterwards.
TRANSPOSED = tuple(orientation >= 5 for orientation in range(9))
FLIPPED = tuple((one in (3, 4, 7, 8), one in (2, 3, 6, 7)) for one in range(9))
# Tag of the orientation and two types of values in EXIF data, and bytes of an entry.
TAG, SHORT, LONG, ENTRY_BYTES = 0x0112, 3, 4, 12
MAX_EXIF_BYTES = 1 << 16
EXIF_PREFIX = b"Exif\0\0"
# Number of segments or chunks of a file that are searched.
MAX_CHUNKS = 16_384
# Bytes at the start of a segment or chunk that are read.
HEAD_BYTES = 10
# Markers of JPEG: those without a length, and those at which the header ends.
STANDALONE, HEADER_ENDS, APP1 = (0x01, *range(0xD0, 0xD8)), (0xDA, 0xD9), 0xE1

# Whether a segment or chunk holds the EXIF data, whether it is the last one, its length, and the
# offset of its content.
Chunk = tuple[tf.Tensor, tf.Tensor, tf.Tensor, int]


def jpeg_orientation(data: tf.Tensor) -> tf.Tensor:
    """Read the orientation of a JPEG file, () int32; 1 if the file does not have it.

    Args:
        data: () string.

    Raises:
        tf.errors.InvalidArgumentError: If the file has too many segments.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.data.orientation import jpeg_orientation
        >>> header = "ffd8 ffe1 0022 457869660000"
        >>> exif = "4949 2a00 08000000 0100 1201 0300 01000000 06000000 00000000"
        >>> int(jpeg_orientation(tf.constant(bytes.fromhex(header + exif + "ffd9"))))
        6
    """

    def describe(head: ByteReader) -> Chunk:
        marker = head.byte(1)
        # Other bytes, and more bytes of 255, may stand before a marker.
        is_marker = (head.byte(0) == 0xFF) & (marker != 0xFF)
        length = tf.where(
            tf.reduce_any(marker == STANDALONE), tf.constant(2, tf.int64), 2 + head.big_endian(2, 2)
        )
        return (
            is_marker & (marker == APP1) & head.matches(4, EXIF_PREFIX),
            is_marker & tf.reduce_any(marker == HEADER_ENDS),
            tf.where(is_marker, length, 1),
            4,
        )

    return _find_orientation(data, 2, describe)


def png_orientation(data: tf.Tensor) -> tf.Tensor:
    """Read the orientation of a PNG file, () int32, from its chunk `eXIf`; 1 without one.

    Args:
        data: () string.

    Raises:
        tf.errors.InvalidArgumentError: If the file has too many chunks.
    """

    def describe(head: ByteReader) -> Chunk:
        is_last = head.matches(4, b"IEND")
        return head.matches(4, b"eXIf"), is_last, head.big_endian(0, 4) + 12, 8

    return _find_orientation(data, 8, describe)


def webp_orientation(data: tf.Tensor) -> tf.Tensor:
    """Read the orientation of a WebP file, () int32, from its chunk `EXIF`; 1 without one.

    Args:
        data: () string.

    Raises:
        tf.errors.InvalidArgumentError: If the file has too many chunks.
    """

    def describe(head: ByteReader) -> Chunk:
        length = head.little_endian(4, 4)
        return head.matches(0, b"EXIF"), tf.constant(False), length + length % 2 + 8, 8

    # The header of the extended format says if there is such a chunk.
    header = read_head(data, 0, 24)
    has_exif = header.matches(12, b"VP8X") & (header.byte(20) // 8 % 2 == 1)
    return tf.cond(
        has_exif, lambda: _find_orientation(data, 12, describe), lambda: tf.constant(UPRIGHT)
    )


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn an image as its orientation says.

    Args:
        image: (h, w, c), the pixels as they are stored.
        orientation: () int32, 1 to 8.

    Returns:
        (h, w, c), or (w, h, c) for the transposed orientations.
    """

    def turn() -> tf.Tensor:
        turned = tf.cond(
            tf.gather(TRANSPOSED, orientation),
            lambda: tf.transpose(image, (1, 0, 2)),
            lambda: image,
        )
        return tf.reverse(turned, tf.boolean_mask([0, 1], tf.gather(FLIPPED, orientation)))

    return tf.cond(orientation == UPRIGHT, lambda: image, turn)


def upright_sides(sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return height and width of the upright image, (2,), from those of the stored one."""
    return tf.where(tf.gather(TRANSPOSED, orientation), sides[::-1], sides)


def stored_window(
    begin: tf.Tensor, size: tf.Tensor, sides: tf.Tensor, orientation: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the window of the stored image that a window of the upright one is turned from.

    Args:
        begin: (2,) int32, top and left in the upright image.
        size: (2,) int32, height and width.
        sides: (2,) int32, height and width of the upright image.
        orientation: () int32, 1 to 8.

    Returns:
        Top and left, and height and width, both (2,) int32.
    """
    begin = tf.where(tf.gather(FLIPPED, orientation), sides - begin - size, begin)
    return upright_sides(begin, orientation), upright_sides(size, orientation)


def _find_orientation(
    data: tf.Tensor, start: int, describe: Callable[[ByteReader], Chunk]
) -> tf.Tensor:
    """Return the orientation in the first chunk that holds EXIF data, () int32.

    Args:
        data: () string, the file.
        start: Offset of the first chunk.
        describe: Function of the first `HEAD_BYTES` of a chunk.
    """
    end = tf.cast(tf.strings.length(data), tf.int64)

    def step(
        number: tf.Tensor, offset: tf.Tensor, content: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        found, is_last, length, skip = describe(read_head(data, offset, HEAD_BYTES))
        content = tf.where(found, tf.minimum(offset + skip, end), content)
        return number + 1, tf.where(found | is_last, end, offset + length), content

    _, offset, content = tf.while_loop(
        lambda number, offset, content: (offset < end) & (number < MAX_CHUNKS),
        step,
        (tf.constant(0), tf.constant(start, tf.int64), end),
    )
    bounded = assert_or_invalid_argument(
        offset >= end, "the file has too many parts to look for its EXIF data"
    )
    [content] = with_dependencies(bounded, content)
    return _read_tag(tf.strings.substr(data, content, tf.constant(MAX_EXIF_BYTES, tf.int64)))


def _read_tag(exif: tf.Tensor) -> tf.Tensor:
    """Return the orientation in EXIF data, () int32; 1 without it or if they are malformed."""
    has_prefix = tf.strings.substr(exif, 0, len(EXIF_PREFIX)) == EXIF_PREFIX
    exif = tf.strings.substr(exif, tf.where(has_prefix, len(EXIF_PREFIX), 0), MAX_EXIF_BYTES)
    size = tf.cast(tf.strings.length(exif), tf.int64)
    read = ByteReader(tf.strings.join([exif, b"\0" * 8]))
    little = read.matches(0, b"II*\0")
    valid = little | read.matches(0, b"MM\0*")
    directory = tf.where(little, read.little_endian(4, 4), read.big_endian(4, 4))
    directory = tf.where(directory + 2 <= size, directory, 0)
    count = tf.where(little, read.little_endian(directory, 2), read.big_endian(directory, 2))
    count = tf.minimum(count, (size - directory - 2) // ENTRY_BYTES)
    first = directory + 2
    entries = read.values[first : first + ENTRY_BYTES * tf.maximum(count, 0)]
    entries = tf.cast(tf.reshape(entries, (-1, ENTRY_BYTES)), tf.int32)

    def column(offset: int, length: int) -> tf.Tensor:
        """Returns the number of `length` bytes at an offset of every entry."""
        rising = tf.constant([256**i for i in range(length)])
        values = entries[:, offset : offset + length]
        return tf.reduce_sum(values * tf.where(little, rising, rising[::-1]), axis=1)

    kind = column(2, 2)
    value = tf.where(kind == SHORT, column(8, 2), tf.where(kind == LONG, column(8, 4), UPRIGHT))
    values = tf.boolean_mask(value, (column(0, 2) == TAG) & valid)
    orientation = tf.concat([values, [UPRIGHT]], axis=0)[0]
    return tf.where((orientation >= 1) & (orientation <= 8), orientation, UPRIGHT)

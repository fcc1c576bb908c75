"""First frames of GIF and WebP files, as still files, inside TensorFlow graphs.

TensorFlow decodes every frame of a GIF animation to return the first one, loses the transparency,
and returns wrong pixels of a WebP animation. The functions here write a file of the first frame
alone, from the bytes of the animation.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from cnnkit.data.graph_checks import (
    ByteReader,
    assert_or_invalid_argument,
    little_endian_bytes,
    read_head,
    with_dependencies,
)

# Largest number of data blocks before the end of a GIF file's first frame. A full block holds 255
# bytes, as writers fill them: 4 MB.
MAX_BLOCKS = 16_384
EXTENSION, FRAME, END = 0x21, 0x2C, b"\x3b"
GRAPHIC_CONTROL = 0xF9
SCREEN_BYTES, DESCRIPTOR_BYTES, MAX_TABLE_BYTES = 13, 10, 3 * 256
# Number of chunks of a WebP file before its first frame that are skipped.
MAX_CHUNKS = 1024
FRAME_HEADER_BYTES = 16
ALPHA_FLAG, ANIMATION_FLAG = 0x10, 0x02


class StillImage(NamedTuple):
    """The first frame of a file, as a file of its own, and its place in the image.

    Attributes:
        data: () string, the file of the frame.
        size: (2,) int64, height and width of the frame.
        offset: (2,) int64, its top and left in the image.
        canvas: (2,) int64, height and width of the image. Pixels outside of the frame are
            transparent.
        rest: () string, what follows the frame in its file.
    """

    data: tf.Tensor
    size: tf.Tensor
    offset: tf.Tensor
    canvas: tf.Tensor
    rest: tf.Tensor


def first_gif_frame(data: tf.Tensor, background: tuple[int, int, int] | None = None) -> StillImage:
    """Return the first frame of a GIF file, at the origin of its own screen.

    The image is the union of the screen and the frame.

    Args:
        data: () string.
        background: RGB that the transparent color becomes; None leaves it as it is stored.

    Raises:
        tf.errors.InvalidArgumentError: If the first frame is incomplete or has too many blocks.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.data.animation import first_gif_frame
        >>> screen, table = "474946383961 0300 0200 80 00 00", "0000ff ffffff"
        >>> frame = "2c 0000 0000 0300 0200 00 02 03 8c9d05 00"
        >>> still = bytes.fromhex(screen + table + frame)
        >>> first_gif_frame(tf.constant(still + b"more")).data.numpy() == still + b";"
        True
    """
    length = tf.strings.length(data)
    # Every loop below stops at a 0, so that none reads past these.
    file = ByteReader(tf.strings.join([data, b"\0" * 2 * MAX_TABLE_BYTES]))

    def read(offset: tf.Tensor | int) -> tf.Tensor:
        return tf.cast(file.values[offset], tf.int32)

    def end_of_blocks(offset: tf.Tensor, blocks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Walks from the first block of a chain to the offset after its end."""

        def walk(
            offset: tf.Tensor, blocks: tf.Tensor, size: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            following = offset + 1 + size
            return following, blocks + 1, read(following)

        offset, blocks, _ = tf.while_loop(
            lambda offset, blocks, size: (size > 0) & (blocks < MAX_BLOCKS),
            walk,
            (offset, blocks, read(offset)),
        )
        return offset + 1, blocks

    def is_extension(offset: tf.Tensor, blocks: tf.Tensor, transparent: tf.Tensor) -> tf.Tensor:
        return (read(offset) == EXTENSION) & (blocks < MAX_BLOCKS)

    def skip_extension(
        offset: tf.Tensor, blocks: tf.Tensor, transparent: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # The transparent color is in the last such extension before the frame.
        index = tf.where(read(offset + 3) % 2 == 1, read(offset + 6), -1)
        is_control = (read(offset + 1) == GRAPHIC_CONTROL) & (read(offset + 2) >= 4)
        transparent = tf.where(is_control, index, transparent)
        # Extensions count as blocks, so that a file of empty ones ends the loop.
        return *end_of_blocks(offset + 2, blocks + 1), transparent

    screen_table = _color_table_bytes(read(10))
    offset, blocks, transparent = tf.while_loop(
        is_extension,
        skip_extension,
        (SCREEN_BYTES + screen_table, tf.constant(0), tf.constant(-1)),
    )
    found = assert_or_invalid_argument(
        (read(offset) == FRAME) & (offset + DESCRIPTOR_BYTES < length),
        "a GIF file has no picture near its start",
    )
    offset, blocks = with_dependencies(found, offset, blocks)
    left, top, width, height = (file.little_endian(offset + 1 + 2 * i, 2) for i in range(4))
    frame_table = _color_table_bytes(read(offset + 9))
    pixels = offset + DESCRIPTOR_BYTES + frame_table
    # After the byte of the code size.
    end, blocks = end_of_blocks(pixels + 1, blocks)
    whole = assert_or_invalid_argument(
        (end <= length) & (blocks < MAX_BLOCKS),
        "the first picture of a GIF file is not whole, or has too many blocks",
    )
    end, width = with_dependencies(whole, end, width)

    def table(start: tf.Tensor | int, size: tf.Tensor) -> tf.Tensor:
        """Returns a color table, in which the background replaces the transparent color."""
        entries = tf.strings.substr(data, start, size)
        if background is None:
            return entries
        place = 3 * transparent
        return tf.cond(
            (place >= 0) & (place < size),
            lambda: tf.strings.join(
                [
                    tf.strings.substr(entries, 0, place),
                    bytes(background),
                    tf.strings.substr(entries, place + 3, size),
                ]
            ),
            lambda: entries,
        )

    sides = tf.strings.substr(data, offset + 5, 4)
    still = tf.strings.join(
        [
            tf.strings.substr(data, 0, 6),
            sides,
            tf.strings.substr(data, 10, 3),
            table(SCREEN_BYTES, screen_table),
            b"\x2c\0\0\0\0",
            sides,
            tf.strings.substr(data, offset + 9, 1),
            table(offset + DESCRIPTOR_BYTES, frame_table),
            tf.strings.substr(data, pixels, end - pixels),
            END,
        ]
    )
    screen = tf.stack([file.little_endian(8, 2), file.little_endian(6, 2)])
    size, place = tf.stack([height, width]), tf.stack([top, left])
    rest = tf.strings.substr(data, end, -1)
    return StillImage(still, size, place, tf.maximum(screen, place + size), rest)


def first_webp_frame(data: tf.Tensor) -> StillImage:
    """Return the first frame of an animated WebP file; another file as it is.

    Args:
        data: () string.

    Raises:
        tf.errors.InvalidArgumentError: If the first frame is missing, incomplete or outside of the
            image.
    """
    header = read_head(data, 0, 30)
    is_animated = header.matches(12, b"VP8X") & (header.byte(20) // ANIMATION_FLAG % 2 == 1)
    sides = webp_sides(header)
    still = StillImage(data, sides, tf.zeros((2,), tf.int64), sides, tf.constant(b""))
    return StillImage(*tf.cond(is_animated, lambda: _webp_frame(data, sides), lambda: still))


def webp_sides(header: ByteReader) -> tf.Tensor:
    """Return (2,) int64: height and width of a WebP file, which has one of three headers.

    Args:
        header: Reader of at least the first 30 bytes of the file.

    Raises:
        tf.errors.InvalidArgumentError: If the header is another one.
    """
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


def _webp_frame(data: tf.Tensor, canvas: tf.Tensor) -> StillImage:
    end = tf.cast(tf.strings.length(data), tf.int64)

    def is_other(number: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        head = read_head(data, tf.minimum(offset, end), 8)
        return (offset < end) & (number < MAX_CHUNKS) & ~head.matches(0, b"ANMF")

    def skip(number: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = read_head(data, offset, 8).little_endian(4, 4)
        return number + 1, offset + 8 + length + length % 2

    number, offset = tf.while_loop(is_other, skip, (tf.constant(0), tf.constant(12, tf.int64)))
    frame = read_head(data, tf.minimum(offset, end), 8 + FRAME_HEADER_BYTES + 8)
    length = frame.little_endian(4, 4) - FRAME_HEADER_BYTES
    left, top = 2 * frame.little_endian(8, 3), 2 * frame.little_endian(11, 3)
    width, height = frame.little_endian(14, 3) + 1, frame.little_endian(17, 3) + 1
    size, place = tf.stack([height, width]), tf.stack([top, left])
    start = offset + 8 + FRAME_HEADER_BYTES
    whole = assert_or_invalid_argument(
        (number < MAX_CHUNKS)
        & (length > 8)
        & (start + length <= end)
        & tf.reduce_all(place + size <= canvas),
        "the first picture of an animated WebP file is missing, not whole, or outside of the image",
    )
    [start] = with_dependencies(whole, start)
    content = tf.strings.substr(data, start, length)
    has_alpha = frame.matches(8 + FRAME_HEADER_BYTES, b"ALPH")
    still = tf.strings.join(
        [
            b"RIFF",
            little_endian_bytes(length + 22, 4),
            b"WEBPVP8X\x0a\0\0\0",
            tf.where(has_alpha, bytes([ALPHA_FLAG]), b"\0"),
            b"\0\0\0",
            little_endian_bytes(width - 1, 3),
            little_endian_bytes(height - 1, 3),
            content,
        ]
    )
    rest = tf.strings.substr(data, start + length, end)
    return StillImage(still, size, place, canvas, rest)


def _color_table_bytes(packed: tf.Tensor) -> tf.Tensor:
    """Return the size of a color table, from the byte that declares it."""
    size = tf.gather([3 * 2 ** (1 + bits) for bits in range(8)], packed % 8)
    return tf.where(packed >= 128, size, 0)

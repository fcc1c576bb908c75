"""Decoding of BMP files, as TensorFlow graph functions.

TensorFlow's own decoder returns the indices of a palette as gray levels, ignores the masks of the
colors, and refuses files of 1, 4 and 16 bits a pixel and run-length encoded ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from cnnkit.data.graph_checks import (
    assert_or_invalid_argument,
    check_sides,
    read_head,
    with_dependencies,
)

# Offsets of the two structures of a file's header, and sizes of the second one.
FILE_BYTES = 14
CORE_BYTES, INFO_BYTES = 12, (40, 52, 56, 64, 108, 124)
# The longest header.
HEADER_WINDOW = FILE_BYTES + INFO_BYTES[-1]
# Smallest size of the second structure that holds a mask of the transparency.
ALPHA_INFO_BYTES = 56
MASKS_OFFSET = 54
UNCOMPRESSED, RLE8, RLE4, BITFIELDS = range(4)
PALETTE_BITS = (1, 4, 8)
# Bits a pixel and compression of the files that are decoded.
SUPPORTED = (
    *((bits, UNCOMPRESSED) for bits in (*PALETTE_BITS, 16, 24, 32)),
    (8, RLE8),
    (4, RLE4),
    (16, BITFIELDS),
    (32, BITFIELDS),
)
MASKS_555 = (0x7C00, 0x03E0, 0x001F, 0)
MASKS_BGRX = (0xFF0000, 0xFF00, 0xFF, 0)
MASKS_BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
MAX_MASK_BITS = 16
# First bytes of a pair in run-length encoding that has no run.
END_OF_LINE, END_OF_IMAGE, DELTA = range(3)


class BmpHeader(NamedTuple):
    """Header of a BMP file: () int64 tensors, and the masks, (4,) int64.

    Attributes:
        height: Rows; the first one of the file is at the bottom, or at the top if `top_down`.
        width: Columns.
        top_down: () bool.
        bits: Bits a pixel.
        compression: One of the constants of this module, or another number.
        info_bytes: Size of the second structure.
        colors: Entries of the palette.
        color_bytes: Bytes of an entry.
        palette: Offset of the palette.
        pixels: Offset of the pixels.
        masks: Bits of red, green, blue and the opacity in a pixel.
    """

    height: tf.Tensor
    width: tf.Tensor
    top_down: tf.Tensor
    bits: tf.Tensor
    compression: tf.Tensor
    info_bytes: tf.Tensor
    colors: tf.Tensor
    color_bytes: tf.Tensor
    palette: tf.Tensor
    pixels: tf.Tensor
    masks: tf.Tensor


def read_bmp_header(data: tf.Tensor) -> BmpHeader:
    """Read the header of a BMP file without checking it.

    Args:
        data: () string, of any length: missing bytes count as zeros.
    """
    read = read_head(data, 0, HEADER_WINDOW)
    info_bytes = read.little_endian(14, 4)
    is_core = info_bytes == CORE_BYTES

    def choose(core: tf.Tensor | int, info: tf.Tensor | int) -> tf.Tensor:
        return tf.where(is_core, tf.cast(core, tf.int64), tf.cast(info, tf.int64))

    height = choose(read.little_endian(20, 2), read.signed(22))
    bits = choose(read.little_endian(24, 2), read.little_endian(28, 2))
    compression = choose(UNCOMPRESSED, read.little_endian(30, 4))
    masks = tf.stack([read.little_endian(MASKS_OFFSET + 4 * i, 4) for i in range(4)])
    masks *= tf.stack([1, 1, 1, tf.cast(info_bytes >= ALPHA_INFO_BYTES, tf.int64)])
    # A file whose masks are all zero has the usual ones.
    masks = tf.where(tf.reduce_any(masks != 0), masks, MASKS_BGRA)
    default = tf.where(bits == 16, tf.constant(MASKS_555, tf.int64), MASKS_BGRX)
    has_masks = compression == BITFIELDS
    has_palette = bits <= max(PALETTE_BITS)
    given = choose(0, read.little_endian(46, 4))
    most = tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.minimum(bits, 16))
    colors = tf.where(has_palette, tf.where(given == 0, most, given), 0)
    # The smallest header with masks has them after its end.
    masks_bytes = tf.where((info_bytes == INFO_BYTES[0]) & has_masks, 12, 0)
    palette = FILE_BYTES + info_bytes + tf.cast(masks_bytes, tf.int64)
    declared, color_bytes = read.little_endian(10, 4), choose(3, 4)
    return BmpHeader(
        height=tf.abs(height),
        width=choose(read.little_endian(18, 2), read.signed(18)),
        top_down=height < 0,
        bits=bits,
        compression=compression,
        info_bytes=info_bytes,
        colors=colors,
        color_bytes=color_bytes,
        palette=palette,
        # Writers that leave the offset out put the pixels after the palette.
        pixels=tf.where(declared > palette, declared, palette + color_bytes * colors),
        masks=tf.where(has_masks, masks, default),
    )


def check_bmp_header(header: BmpHeader) -> tf.Operation:
    """Return the operation that fails with INVALID_ARGUMENT for a file that is not supported."""
    levels = header.masks // tf.maximum(_lowest_bit(header.masks), 1)
    whole = tf.reduce_all(
        (tf.bitwise.bitwise_and(levels, levels + 1) == 0) & (levels < 2**MAX_MASK_BITS)
    )
    layout = tf.stack([header.bits, header.compression])
    return assert_or_invalid_argument(
        tf.reduce_any(header.info_bytes == (CORE_BYTES, *INFO_BYTES))
        & tf.reduce_any(tf.reduce_all(layout == tf.constant(SUPPORTED, tf.int64), axis=1))
        & whole,
        "the BMP file is of an unsupported kind: its header has {} bytes, a pixel {} bits, and the "
        "compression is {}",
        header.info_bytes,
        header.bits,
        header.compression,
    )


def decode_bmp(data: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decode a BMP file of 1, 4, 8, 16, 24 or 32 bits a pixel, run-length encoded or not.

    Args:
        data: () string.
        max_pixels: Largest number of pixels.

    Returns:
        (h, w, 3) uint8 RGB, or (h, w, 4) RGBA if the file has a mask of the opacity. The fourth
        byte of a pixel without masks is unused.

    Raises:
        tf.errors.InvalidArgumentError: If the file is not supported, not whole, or has too many
            pixels.

    Example:
        >>> import struct
        >>> import tensorflow as tf
        >>> from cnnkit.data.bmp import decode_bmp
        >>> header = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 66, 0, 62, 40, 1, 1, 1, 1, *[0] * 6)
        >>> palette = bytes([0, 0, 255, 0, 255, 0, 0, 0])  # red and blue
        >>> decode_bmp(tf.constant(header + palette + bytes(4)), 1).numpy().tolist()
        [[[255, 0, 0]]]
    """
    header = read_bmp_header(data)
    length = tf.cast(tf.strings.length(data), tf.int64)
    stride = (header.width * header.bits + 31) // 32 * 4
    # The padding of the last row may be missing.
    needed = stride * (header.height - 1) + (header.width * header.bits + 7) // 8
    is_rle = (header.compression == RLE8) | (header.compression == RLE4)
    is_whole = assert_or_invalid_argument(
        (tf.minimum(header.height, header.width) >= 1)
        & (header.pixels + tf.where(is_rle, tf.zeros_like(needed), needed) <= length),
        "the BMP file has {} bytes, too few for {} x {} pixels (height x width)",
        length,
        header.height,
        header.width,
    )
    fits = check_sides(tf.stack([header.height, header.width]), max_pixels)
    [data] = with_dependencies([fits, check_bmp_header(header), is_whole], data)
    padded = tf.strings.join([_slice(data, header.pixels, length), b"\0" * 4])
    shape = (header.height, header.width)

    def rows(dtype: tf.DType) -> tf.Tensor:
        """Returns the numbers of all rows, with their padding, (h, m)."""
        values = tf.io.decode_raw(_slice(padded, 0, stride * header.height), dtype)
        return tf.reshape(values, (header.height, -1))

    def indices(bits: int) -> tf.Tensor:
        packed = rows(tf.uint8)
        shifts = tf.constant([*range(8 - bits, -1, -bits)], tf.uint8)
        unpacked = tf.bitwise.right_shift(packed[..., None], shifts) & (2**bits - 1)
        return tf.reshape(unpacked, (header.height, -1))[:, : header.width]

    def from_palette(read: Callable[[], tf.Tensor]) -> Callable[[], tf.Tensor]:
        return lambda: tf.gather(_palette(data, header), tf.cast(read(), tf.int32))

    readers: list[tuple[tf.Tensor, Callable[[], tf.Tensor]]] = [
        (header.compression == RLE8, from_palette(lambda: _run_lengths(padded, shape, 8))),
        (header.compression == RLE4, from_palette(lambda: _run_lengths(padded, shape, 4))),
        *(
            (header.bits == bits, from_palette(functools.partial(indices, bits)))
            for bits in PALETTE_BITS
        ),
        (header.bits == 16, lambda: _masked(rows(tf.uint16), header)),
        (header.bits == 32, lambda: _masked(tf.bitcast(rows(tf.int32), tf.uint32), header)),
    ]
    image = tf.case(
        readers,
        default=lambda: tf.reverse(
            tf.reshape(rows(tf.uint8)[:, : 3 * header.width], (*shape, 3)), [2]
        ),
        exclusive=False,
    )
    image = tf.cond(header.top_down, lambda: image, lambda: tf.reverse(image, [0]))
    return tf.ensure_shape(image, (None, None, None))


def _slice(data: tf.Tensor, start: tf.Tensor | int, count: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(data, tf.cast(start, tf.int64), count)


def _lowest_bit(masks: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_and(masks, -masks)


def _palette(data: tf.Tensor, header: BmpHeader) -> tf.Tensor:
    """Return the colors of a palette, (256, 3) uint8 RGB; missing ones are black."""
    count = tf.minimum(header.colors, 256) * header.color_bytes
    entries = _slice(data, header.palette, count)
    filled = tf.strings.join([entries, b"\0" * (256 * 4)])
    values = tf.io.decode_raw(_slice(filled, 0, 256 * header.color_bytes), tf.uint8)
    return tf.reshape(values, (256, header.color_bytes))[:, 2::-1]


def _masked(pixels: tf.Tensor, header: BmpHeader) -> tf.Tensor:
    """Return the channels that the masks select from (h, m) numbers, (h, w, 3 or 4) uint8."""
    pixels = tf.cast(pixels[:, : header.width], tf.uint32)

    def channel(index: int) -> tf.Tensor:
        mask = header.masks[index]
        lowest = _lowest_bit(mask)
        largest = tf.cast(mask // tf.maximum(lowest, 1), tf.uint32)
        shift = tf.cast(tf.raw_ops.PopulationCount(x=tf.maximum(lowest, 1) - 1), tf.uint32)
        level = tf.cast(tf.bitwise.right_shift(pixels, shift) & largest, tf.int32)
        return tf.cast(level * 255 // tf.maximum(tf.cast(largest, tf.int32), 1), tf.uint8)

    return tf.cond(
        header.masks[3] == 0,
        lambda: tf.stack([channel(i) for i in range(3)], axis=-1),
        lambda: tf.stack([channel(i) for i in range(4)], axis=-1),
    )


def _run_lengths(encoded: tf.Tensor, shape: tuple[tf.Tensor, tf.Tensor], bits: int) -> tf.Tensor:
    """Decode the indices of a run-length encoded file, (h, w) uint8; skipped pixels are 0.

    The file is a sequence of pairs of bytes. (n, v) is a run of n pixels; (0, 0) ends a row, (0, 1)
    the image; (0, 2) is followed by a pair of columns and rows to skip; (0, n) is followed by n
    pixels. All pairs are decoded at once: a loop over them would take seconds.
    """
    height, width = shape
    values = tf.io.decode_raw(encoded, tf.uint8)
    pairs = tf.cast(tf.reshape(values[: tf.size(values) // 2 * 2], (-1, 2)), tf.int32)
    place = _instructions(pairs, bits)
    first, second = tf.unstack(tf.gather(pairs, place), axis=1)
    skipped = tf.gather(pairs, tf.minimum(place + 1, tf.shape(pairs)[0] - 1))
    skipped = tf.where(((first == 0) & (second == DELTA))[:, None], skipped, 0)
    is_literal = (first == 0) & (second > DELTA)
    ends_line = (first == 0) & (second == END_OF_LINE)
    count = tf.cast(tf.where(is_literal, second, first), tf.int64)
    # Row and column of each instruction, from the steps of those before it.
    steps = count + tf.cast(skipped[:, 0], tf.int64)
    ends = tf.cumsum(steps)
    line_starts = tf.concat([[tf.constant(0, tf.int64)], tf.boolean_mask(ends, ends_line)], axis=0)
    lines_before = tf.cumsum(tf.cast(ends_line, tf.int32), exclusive=True)
    column = ends - steps - tf.gather(line_starts, lines_before)
    down = tf.cast(ends_line, tf.int64) + tf.cast(skipped[:, 1], tf.int64)
    row = tf.cumsum(down, exclusive=True)
    is_whole = assert_or_invalid_argument(
        tf.reduce_any((first == 0) & (second == END_OF_IMAGE))
        | tf.reduce_any((row >= height - 1) & (column + count >= width)),
        "the run-length encoded BMP file is not whole",
    )
    # Pixels beyond the end of a row, and rows beyond the last one, are dropped.
    room = tf.where(row < height, tf.maximum(width - column, 0), 0)
    [count] = with_dependencies(is_whole, tf.minimum(count, room))
    start = tf.where(count > 0, row * width + column, 0)
    run_end = tf.where(is_literal, start, start + count)
    high, low = (second, second) if bits == 8 else (second // 16, second % 16)
    # Colors at the even and at the odd pixels of the image.
    runs = tf.stack([high, low], axis=1)
    runs = tf.where((start % 2 == 1)[:, None], runs[:, ::-1], runs)
    literals, literal_start = _literals(values, place, start, tf.where(is_literal, count, 0), bits)
    # The sum of the changes up to a pixel is its color. Bytes wrap around, which does no harm.
    changes = tf.concat([runs, -runs, literals, -literals], axis=0) & 255
    where = tf.concat([start, run_end, literal_start, literal_start + 1], axis=0)
    pixels = height * width
    sums = tf.cumsum(
        tf.scatter_nd(
            where[:, None], tf.cast(changes, tf.uint8), tf.stack([pixels // 2 * 2 + 2, 2])
        )
    )
    # Of each even pixel and the odd one after it.
    in_twos = tf.reshape(sums, (-1, 2, 2))
    even_odd = tf.stack([in_twos[:, 0, 0], in_twos[:, 1, 1]], axis=1)
    return tf.reshape(tf.reshape(even_odd, [-1])[:pixels], shape)


def _instructions(pairs: tf.Tensor, bits: int) -> tf.Tensor:
    """Return the indices of the pairs, (n, 2) int32, that are no pixels or skips, ascending."""
    count = tf.shape(pairs)[0]
    first, second = tf.unstack(pairs, axis=1)
    literal_pairs = -(-second // (16 // bits))
    step = 1 + tf.where(second > DELTA, literal_pairs, tf.cast(second == DELTA, tf.int32))
    following = tf.range(count) + tf.where(first > 0, 1, step)
    following = tf.where((first == 0) & (second == END_OF_IMAGE), count, following)
    # With one more for the end.
    following = tf.minimum(tf.concat([following, [count]], axis=0), count)

    def double(reached: tf.Tensor, following: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Doubles the number of steps from the first pair that are reached and followed."""
        targets = tf.boolean_mask(following, reached)
        hits = tf.scatter_nd(targets[:, None], tf.ones_like(targets), [count + 1])
        return reached | (hits > 0), tf.gather(following, following)

    reached, _ = tf.while_loop(
        lambda reached, following: following[0] < count,
        double,
        (tf.range(count + 1) == 0, following),
    )
    return tf.cast(tf.where(reached[:count])[:, 0], tf.int32)


def _literals(
    values: tf.Tensor, place: tf.Tensor, start: tf.Tensor, count: tf.Tensor, bits: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the pixels that are stored one by one, (m, 2) int32, and their places, (m,) int64.

    The columns are equal: a pixel has the same color whether its place is even or odd.
    """
    owner = tf.repeat(tf.range(tf.size(count)), count)
    before = tf.gather(tf.cumsum(count, exclusive=True), owner)
    number = tf.range(tf.size(owner, tf.int64)) - before
    byte = 2 * (tf.cast(tf.gather(place, owner), tf.int64) + 1) + number * bits // 8
    last = tf.size(values, tf.int64) - 1
    found = tf.cast(tf.gather(values, tf.minimum(byte, last)), tf.int32)
    if bits == 4:
        found = tf.where(number % 2 == 0, found // 16, found % 16)
    return tf.stack([found, found], axis=1), tf.gather(start, owner) + number

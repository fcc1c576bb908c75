"""Checks of PNG files, as TensorFlow graph functions.

libpng reserves the length that a chunk of text or metadata declares, and TensorFlow fills it: up to
2 GB for a file of 100 bytes.
"""

from __future__ import annotations

import tensorflow as tf

from cnnkit._untrusted.limits import MAX_PNG_CHUNKS
from cnnkit.data.graph_checks import assert_or_invalid_argument

# The signature and the header chunk; the bytes of a chunk around its data.
FIRST_CHUNK, AROUND_DATA = 33, 12
LAST_CHUNK = b"IEND"
# The first chunk after the header begins within these.
HEAD_BYTES = 64


def png_sides(data: tf.Tensor) -> tf.Tensor:
    """Return (2,) int64: height and width of a PNG file; 0 if it is shorter than its header."""
    field = tf.strings.substr(_head(data), 16, 8)
    sides = tf.io.decode_raw(field, tf.int32, little_endian=False, fixed_length=8)[::-1]
    return tf.cast(tf.bitcast(sides, tf.uint32), tf.int64)


def has_one_chunk(data: tf.Tensor) -> tf.Tensor:
    """Return () bool: whether a PNG file has one chunk between its first and its last."""
    length = tf.cast(tf.strings.length(data), tf.int64)
    is_last = tf.strings.substr(data, tf.maximum(length - 8, 0), 4) == LAST_CHUNK
    return is_last & (_end_of(_head(data), FIRST_CHUNK) == length - AROUND_DATA)


def check_png_chunks(data: tf.Tensor) -> tf.Operation | None:
    """Return the operation that fails with INVALID_ARGUMENT unless all chunks end within the file.

    Args:
        data: () string, a PNG file.
    """
    length = tf.cast(tf.strings.length(data), tf.int64)

    def follow(
        number: tf.Tensor, offset: tf.Tensor, is_last: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        is_last = tf.strings.substr(data, offset + 4, tf.constant(4, tf.int64)) == LAST_CHUNK
        return number + 1, _end_of(data, offset), is_last

    number, offset, _ = tf.while_loop(
        lambda number, offset, is_last: (
            (offset + AROUND_DATA <= length) & (number < MAX_PNG_CHUNKS) & ~is_last
        ),
        follow,
        (tf.constant(0), tf.constant(FIRST_CHUNK, tf.int64), tf.constant(False)),
    )
    return assert_or_invalid_argument(
        (offset <= length) & (number < MAX_PNG_CHUNKS),
        "the PNG file is not whole, or has too many chunks",
    )


def _end_of(data: tf.Tensor, offset: tf.Tensor | int) -> tf.Tensor:
    """Return the offset behind a chunk, () int64."""
    field = tf.strings.substr(data, tf.cast(offset, tf.int64), tf.constant(4, tf.int64))
    size = tf.io.decode_raw(field, tf.int32, little_endian=False, fixed_length=4)[0]
    # A length of 2 GB or more, which the format has not, counts as negative.
    end = tf.cast(offset, tf.int64) + AROUND_DATA + tf.cast(size, tf.int64)
    return tf.where(size < 0, tf.constant(2**62, tf.int64), end)


def _head(data: tf.Tensor) -> tf.Tensor:
    """Return the first bytes of a file and zeros: TensorFlow's error would quote a short file."""
    return tf.strings.join([tf.strings.substr(data, 0, HEAD_BYTES), b"\0" * HEAD_BYTES])

"""Checks inside a TensorFlow graph: assertions, control dependencies, reading of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import tensorflow as tf

# A larger side would overflow 32 bits when the image is rescaled.
MAX_SIDE = 65_535
# Name of an input and the index of the row that is checked while a graph is traced.
_CHECKED_ROW: ContextVar[tuple[str, tf.Tensor] | None] = ContextVar("checked_row", default=None)


@contextmanager
def checked_row(name: str, index: tf.Tensor) -> Iterator[None]:
    """Puts `NAME[INDEX]: ` before the text of every check that is traced within the block.

    Args:
        name: Name of the input.
        index: () int, the row that is checked.
    """
    token = _CHECKED_ROW.set((name, index))
    try:
        yield
    finally:
        _CHECKED_ROW.reset(token)


def assert_or_invalid_argument(
    condition: tf.Tensor, message: str, *values: tf.Tensor | int
) -> tf.Operation | None:
    """Returns the operation that fails with INVALID_ARGUMENT unless a condition holds.

    Outside of graphs it fails at once, or there is none.

    TensorFlow writes `assertion failed: [TEXT]`; `cnnkit.client` shows the text alone.

    Args:
        condition: () bool.
        message: Text of the error, with `{}` for each value; ASCII, a single line.
        values: () integers or strings.
    """
    row = _CHECKED_ROW.get()
    if row is not None:
        message, values = f"{row[0]}[{{}}]: {message}", (row[1], *values)

    def refuse() -> tf.Operation:
        # One string: TensorFlow puts every further value into brackets.
        first, *pieces = message.split("{}")
        texts = [tf.constant(first)]
        for value, piece in zip(values, pieces, strict=True):
            value = tf.convert_to_tensor(value)
            texts += [value if value.dtype == tf.string else tf.strings.as_string(value), piece]
        return tf.raw_ops.Assert(condition=False, data=[tf.strings.join(texts)])

    # The text is made where it is needed only: a pipeline checks every image.
    checked = tf.cond(condition, tf.no_op, refuse)
    return None if tf.executing_eagerly() else checked.op


def failed_check(error: tf.errors.InvalidArgumentError) -> str | None:
    """Returns the text of the check that failed; None if TensorFlow itself refused something.

    TensorFlow writes the reason of a check in brackets; its own texts name operations.
    """
    found = re.search(r"\[(the [^\]]+)\]", error.message)
    return found and found[1]


def fits(sides: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Returns () bool: whether an image of these sides, (2,) int64, has pixels and not too many."""
    sides = tf.cast(sides, tf.int64)
    return (
        (tf.reduce_min(sides) >= 1)
        & (tf.reduce_max(sides) <= MAX_SIDE)
        & (tf.reduce_prod(sides) <= max_pixels)
    )


def check_sides(sides: tf.Tensor, max_pixels: int) -> tf.Operation | None:
    """Returns the operation that fails with INVALID_ARGUMENT for no or too many pixels.

    A decoder allocates the size that a header declares, so that it has to run afterwards.

    Args:
        sides: (2,) int64, height and width from the header of a file.
        max_pixels: Largest product of the sides.
    """
    return assert_or_invalid_argument(
        fits(sides, max_pixels),
        "the image has {} x {} pixels (height x width), and may have 1 to "
        f"{MAX_SIDE} on a side and {{}} in all",
        sides[0],
        sides[1],
        tf.constant(max_pixels, tf.int64),
    )


def with_dependencies(
    checks: tf.Operation | Sequence[tf.Operation | None] | None, *tensors: tf.Tensor
) -> Sequence[tf.Tensor]:
    """Returns copies of tensors that are computed after the checks have passed.

    Without this, TensorFlow may decode an image in parallel with the check that refuses it.
    """
    # In eager mode a check has no operation: it has passed already.
    pending = [check for check in tf.nest.flatten(checks) if check is not None]
    with tf.control_dependencies(pending):
        return [tf.identity(tensor) for tensor in tensors]


class ByteReader:
    """Reads the bytes of a string as integers, inside a graph.

    An index outside of the string is an error of the caller.

    Args:
        data: () string.

    Example:
        >>> from cnnkit.data.graph_checks import ByteReader
        >>> int(ByteReader(b"ab").big_endian(0, 2)) == 256 * ord("a") + ord("b")
        True
    """

    def __init__(self, data: tf.Tensor) -> None:
        self.values = tf.io.decode_raw(data, tf.uint8)

    def byte(self, offset: tf.Tensor | int) -> tf.Tensor:
        """Returns the byte at an offset, int64."""
        return tf.cast(tf.gather(self.values, offset), tf.int64)

    def little_endian(self, offset: tf.Tensor | int, count: int) -> tf.Tensor:
        """Returns the integer of `count` bytes whose lowest is first, int64."""
        return self._sum(offset, [256**i for i in range(count)])

    def big_endian(self, offset: tf.Tensor | int, count: int) -> tf.Tensor:
        """Returns the integer of `count` bytes whose highest is first, int64."""
        return self._sum(offset, [256**i for i in reversed(range(count))])

    def signed(self, offset: tf.Tensor | int) -> tf.Tensor:
        """Returns the signed little-endian integer of four bytes, int64."""
        value = self.little_endian(offset, 4)
        return tf.where(value < 2**31, value, value - 2**32)

    def matches(self, offset: int, text: bytes) -> tf.Tensor:
        """Returns () bool: True if the bytes at an offset equal `text`."""
        return tf.reduce_all(self.values[offset : offset + len(text)] == list(text))

    def _sum(self, offset: tf.Tensor | int, factors: list[int]) -> tf.Tensor:
        offset = tf.convert_to_tensor(offset)
        places = offset + tf.range(len(factors), dtype=offset.dtype)
        digits = tf.gather(self.values, places)
        return tf.reduce_sum(tf.cast(digits, tf.int64) * factors)


def read_head(data: tf.Tensor, offset: tf.Tensor | int, count: int) -> ByteReader:
    """Returns a reader of `count` bytes from an offset on; zeros follow the end of the string.

    TensorFlow's error for a read past the end would quote the bytes.

    Args:
        data: () string.
        offset: Offset of the first byte, at most the length of the string.
        count: Number of bytes.
    """
    found = tf.strings.substr(data, tf.cast(offset, tf.int64), tf.constant(count, tf.int64))
    return ByteReader(tf.strings.substr(tf.strings.join([found, b"\0" * count]), 0, count))


def little_endian_bytes(value: tf.Tensor, count: int) -> tf.Tensor:
    r"""Returns a non-negative integer as `count` bytes, the lowest first, () string.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.data.graph_checks import little_endian_bytes
        >>> little_endian_bytes(tf.constant(513), 3).numpy()
        b'\x01\x02\x00'
    """
    digits = [tf.cast(value, tf.int64) // 256**i % 256 for i in range(count)]
    return tf.strings.reduce_join(tf.gather([bytes([i]) for i in range(256)], digits))

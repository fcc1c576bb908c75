"""Refusing inside a graph: bytes are read, conditions are tested, what depends on them waits."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


class Bytes:
    """The bytes of a string as whole numbers, inside a graph.

    Reads outside of the string are the caller's mistake.

    Args:
        data: () string.

    Example:
        >>> from cnnkit.export.refusing import Bytes
        >>> int(Bytes(b"ab").big(0, 2)) == 256 * ord("a") + ord("b")
        True
    """

    def __init__(self, data: tf.Tensor) -> None:
        self.values = tf.io.decode_raw(data, tf.uint8)

    def at(self, place) -> tf.Tensor:
        """Returns the byte at a place, int64."""
        return tf.cast(tf.gather(self.values, place), tf.int64)

    def little(self, place, count: int) -> tf.Tensor:
        """Returns the number of `count` bytes whose lowest is first, int64."""
        return self._sum(place, [256**i for i in range(count)])

    def big(self, place, count: int) -> tf.Tensor:
        """Returns the number of `count` bytes whose highest is first, int64."""
        return self._sum(place, [256**i for i in reversed(range(count))])

    def signed(self, place) -> tf.Tensor:
        """Returns the number of four bytes, the lowest first, that may be below zero."""
        value = self.little(place, 4)
        return tf.where(value < 2**31, value, value - 2**32)

    def has(self, place: int, text: bytes) -> tf.Tensor:
        """Tells whether `text` stands at a place."""
        return tf.reduce_all(self.values[place : place + len(text)] == list(text))

    def _sum(self, place, factors: list[int]) -> tf.Tensor:
        digits = tf.gather(self.values, place + tf.range(len(factors)))
        return tf.reduce_sum(tf.cast(digits, tf.int64) * factors)


def refuse_unless(condition: tf.Tensor, text: str, *numbers) -> tf.Operation:
    """Returns the operation that fails with INVALID_ARGUMENT unless a condition holds.

    Args:
        condition: () bool.
        text: What is wrong; ASCII.
        numbers: Values that are printed behind it.
    """
    return tf.debugging.Assert(condition, [text, *numbers])


def after(checks, *tensors: tf.Tensor) -> Sequence[tf.Tensor]:
    """Returns tensors that are there only once the checks have passed.

    Without this TensorFlow may decode an image beside the check that refuses it.
    """
    # Run eagerly, a check has no operation: it has passed.
    waited = [check for check in tf.nest.flatten(checks) if check is not None]
    with tf.control_dependencies(waited):
        return [tf.identity(tensor) for tensor in tensors]

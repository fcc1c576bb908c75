"""Refusing inside a graph: bytes are read, conditions are tested, what depends on them waits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from cnnkit.errors import UsageError


class ByteReader:
    """The bytes of a string as whole numbers, inside a graph.

    Reads outside of the string are the caller's mistake.

    Args:
        data: () string.

    Example:
        >>> from cnnkit.export.graph_checks import ByteReader
        >>> int(ByteReader(b"ab").big(0, 2)) == 256 * ord("a") + ord("b")
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


def assert_or_invalid_argument(condition: tf.Tensor, text: str, *numbers) -> tf.Operation:
    """Returns the operation that fails with INVALID_ARGUMENT unless a condition holds.

    Args:
        condition: () bool.
        text: What is wrong; ASCII.
        numbers: Values that are printed behind it.
    """
    return tf.debugging.Assert(condition, [text, *numbers])


def with_dependencies(checks, *tensors: tf.Tensor) -> Sequence[tf.Tensor]:
    """Returns tensors that are there only once the checks have passed.

    Without this TensorFlow may decode an image beside the check that refuses it.
    """
    # Run eagerly, a check has no operation: it has passed.
    waited = [check for check in tf.nest.flatten(checks) if check is not None]
    with tf.control_dependencies(waited):
        return [tf.identity(tensor) for tensor in tensors]


# Beyond, the sides of a rescaled image would leave 32 bits.
LONGEST_SIDE = 65_535


@dataclass(frozen=True)
class ImageLimits:
    """What an exported network refuses, before it decodes anything.

    A file of a few kilobytes can unfold to gigabytes; these limits bound what one request costs.

    Attributes:
        images: Images in one request.
        file_bytes: Bytes of an encoded image.
        pixels: Pixels of an encoded image, height times width.
        free_pixels: Pixels of an image that a fully convolutional network takes as numbers. Its
            maps are many times larger than the image: about 3 kB a pixel for VGG-16.

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

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise UsageError(
                    f"The limit {name} lets nothing through", expected="1 or more", received=value
                )

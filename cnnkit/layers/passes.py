"""The two passes of local response normalization, for its layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import ops


@dataclass(frozen=True)
class Passes:
    """b = a / (k + weight * sum of a^2 over the window) ^ beta, and its gradient.

    Maps are (n, h, w, c), float32.

    Attributes:
        size: Cells along each axis of the window.
        weight: Of a cell's square.
        beta: Exponent.
        k: Constant.
        region: `"across"` or `"within"`.
        sliced: Whether a sum over channels is one of slices instead of a product with a matrix:
            out of single operations the product is faster, compiled into one loop the slices are.
    """

    size: int
    weight: float
    beta: float
    k: float
    region: str
    sliced: bool = False

    def forward(self, x):
        """Returns the normalized map, and the base of the power, which `backward` takes."""
        d = self.k + self._window_sum(ops.square(x), self.weight)
        return x * self._power(d), d

    def backward(self, x, y, d, dy):
        """Returns the gradient for the input out of that for the output."""
        # The window sum is its own transpose: cell i counts for j as j counts for i.
        return dy * self._power(d) - x * self._window_sum(dy * y / d, 2 * self.beta * self.weight)

    def _window_sum(self, x, weight: float):
        """Returns `weight` times the sum over each window."""
        channels = x.shape[-1]
        half = self.size // 2
        if self.region == "within":
            kernel = np.full((self.size, self.size, channels, 1), weight, "float32")
            return ops.depthwise_conv(x, kernel, padding="same", data_format="channels_last")
        if self.sliced:
            padded = ops.pad(x, [(0, 0)] * 3 + [(half, half)])
            return weight * sum(padded[..., i : i + channels] for i in range(self.size))
        # A band matrix over the channels, as a 1x1 convolution: one fast product.
        i = np.arange(channels)
        band = np.abs(i[:, None] - i[None, :]) <= half
        kernel = (weight * band).astype("float32")[None, None]
        return ops.conv(x, kernel, padding="valid", data_format="channels_last")

    def _power(self, d):
        """Returns d ^ -beta; the papers' exponent needs no logarithm."""
        if self.beta == 0.75:
            root = ops.rsqrt(d)
            return root * ops.sqrt(root)
        return ops.power(d, -self.beta)


def passes_of(plain: Passes, *, training: bool | None) -> tuple[Callable, Callable]:
    """Returns the functions for both passes, as fast as they come.

    TensorFlow has no fast kernel for this on a CPU, and as single operations, each of which reads
    and writes whole maps, it is an eighth of AlexNet's training step. Compiled by XLA it is one
    loop. But XLA compiles anew for each number of images and size of the map, and a saved model
    would ask for XLA where it is served: so only training uses it, whose batches are all alike.

    Args:
        plain: The passes, not sliced.
        training: Whether the network is being trained.
    """
    if not training or plain.region != "across" or keras.backend.backend() != "tensorflow":
        return plain.forward, plain.backward
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return plain.forward, plain.backward
    return _compiled(replace(plain, sliced=True))


@functools.lru_cache
def _compiled(passes: Passes) -> tuple[Callable, Callable]:
    # Kept here and not by the layer, with which Keras would export what was trained with.
    import tensorflow as tf

    return tuple(
        tf.function(step, jit_compile=True, autograph=False)
        for step in (passes.forward, passes.backward)
    )

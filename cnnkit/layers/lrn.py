"""Local response normalization, with a closed-form gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import ops

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers.backward_rules import current_rule


@dataclass(frozen=True)
class LRNFunctions:
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


def select_lrn(plain: LRNFunctions, *, training: bool | None) -> tuple[Callable, Callable]:
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
def _compiled(passes: LRNFunctions) -> tuple[Callable, Callable]:
    # Kept here and not by the layer, with which Keras would export what was trained with.
    import tensorflow as tf

    return tuple(
        tf.function(step, jit_compile=True, autograph=False)
        for step in (passes.forward, passes.backward)
    )


CONVENTIONS = ("sum", "mean")
REGIONS = ("across", "within")


@keras.saving.register_keras_serializable(package="cnnkit")
class LocalResponseNormalization(keras.layers.Layer):
    """Local response normalization (Krizhevsky et al. 2012, section 3.3).

    b = a / (k + alpha * sum of a^2 over the window) ^ beta, where the window is `size` neighboring
    channels at the same place (`region="across"`), or `size` x `size` places of the same channel
    (`region="within"`, Caffe's WITHIN_CHANNEL). Windows are cut at the border.

    Two conventions for alpha are in use, and they differ by a factor of the window's cells:
    the paper multiplies the sum by alpha (`"sum"`); cuda-convnet, Caffe and PyTorch divide alpha by
    the number of cells of a whole window (`"mean"`). Computed in float32 under every dtype policy,
    because the squares leave the range of float16.

    Input and output: (n, h, w, c), float.

    Args:
        size: Cells along each axis of the window, odd.
        alpha: Weight of the squared activities.
        beta: Exponent.
        k: Constant that keeps the base away from zero.
        alpha_convention: `"sum"` or `"mean"`.
        region: `"across"` or `"within"`.

    Raises:
        UsageError: If an argument is out of range.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import LocalResponseNormalization
        >>> y = LocalResponseNormalization()(np.ones((1, 1, 1, 5), "float32"))
        >>> round(float(y[0, 0, 0, 2]), 6)  # 1 / (2 + 5e-4) ** 0.75
        0.594492
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        alpha_convention: str = "sum",
        region: str = "across",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if size < 1 or size % 2 == 0:
            raise UsageError(
                "The window of a local response normalization has a center",
                expected="an odd size of at least 1",
                received=size,
            )
        if k <= 0 or alpha < 0:
            raise UsageError(
                "Local response normalization divides by (k + alpha * sum) ^ beta",
                expected="k > 0 and alpha >= 0",
                received=f"k={k}, alpha={alpha}",
            )
        if alpha_convention not in CONVENTIONS:
            raise unknown_name("alpha convention", alpha_convention, CONVENTIONS)
        if region not in REGIONS:
            raise unknown_name("region", region, REGIONS)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.alpha_convention = alpha_convention
        self.region = region

    def call(self, inputs, training=None):
        cells = self.size if self.region == "across" else self.size**2
        weight = self.alpha / cells if self.alpha_convention == "mean" else self.alpha
        passes = LRNFunctions(self.size, weight, self.beta, self.k, self.region)
        normalize, derive = select_lrn(passes, training=training)
        rule = current_rule()

        @ops.custom_gradient
        def forward(x):
            y, d = normalize(x)

            def backward(*args, upstream=None):
                dy = args[0] if upstream is None else upstream
                # The deconvnet uses no contrast normalization on its way down.
                return derive(x, y, d, dy) if rule == "gradient" else dy

            return y, backward

        return ops.cast(forward(ops.cast(inputs, "float32")), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "k": self.k,
            "alpha_convention": self.alpha_convention,
            "region": self.region,
        }

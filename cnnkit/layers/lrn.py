"""Local response normalization with a closed-form gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers.backward_rules import current_rule

# A band matrix over more channels than any network has would need more memory than the map.
MAX_BAND_CHANNELS = 4096


@dataclass(frozen=True)
class LRNFunctions:
    """The function b = a / (k + weight * sum of a^2 over the window) ^ beta and its gradient.

    Maps are (n, h, w, c), float32.

    Attributes:
        size: Cells along each axis of the window.
        weight: Factor of the sum of squares.
        beta: Exponent.
        k: Constant.
        region: `"across"` or `"within"`.
        sliced: Whether to sum slices of the channels instead of multiplying by a band matrix. As
            single operations the product is faster, compiled into one loop the slices are.
    """

    size: int
    weight: float
    beta: float
    k: float
    region: str
    sliced: bool = False

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Return the normalized map and the base of the power, an argument of `backward`."""
        d = self.k + self._window_sum(ops.square(x), self.weight)
        return x * self._power(d), d

    def backward(self, x: Any, y: Any, d: Any, dy: Any) -> Any:
        """Return the gradient with respect to the input.

        Args:
            x: The input.
            y: The output.
            d: The base of the power, from `forward`.
            dy: The gradient with respect to the output.
        """
        # The window sum is its own transpose: cell j is in the window of i if i is in that of j.
        return dy * self._power(d) - x * self._window_sum(dy * y / d, 2 * self.beta * self.weight)

    def gradient(self, x: Any, dy: Any) -> Any:
        """Return the gradient with respect to the input, computed from the input alone."""
        d = self.k + self._window_sum(ops.square(x), self.weight)
        root = ops.rsqrt(d)
        # Without a division, which is slow inside the loops of XLA.
        power = root * root * ops.rsqrt(root) if self.beta == 0.75 else self._power(d)
        sums = self._window_sum(dy * x * power * root * root, 2 * self.beta * self.weight)
        return dy * power - x * sums

    def _window_sum(self, x: Any, weight: float) -> Any:
        """Return `weight` times the sum over each window."""
        channels = x.shape[-1]
        half = self.size // 2
        if self.region == "within":
            kernel = np.full((self.size, self.size, channels, 1), weight, "float32")
            return ops.depthwise_conv(x, kernel, padding="same", data_format="channels_last")
        if self.sliced or channels > MAX_BAND_CHANNELS:
            padded = ops.pad(x, [(0, 0)] * 3 + [(half, half)])
            return weight * sum(padded[..., i : i + channels] for i in range(self.size))
        # A band matrix over the channels, as a 1x1 convolution: one fast product.
        i = np.arange(channels)
        band = np.abs(i[:, None] - i[None, :]) <= half
        kernel = (weight * band).astype("float32")[None, None]
        return ops.conv(x, kernel, padding="valid", data_format="channels_last")

    def _power(self, d: Any) -> Any:
        """Return d ^ -beta, without a logarithm for the exponent of the papers."""
        if self.beta == 0.75:
            root = ops.rsqrt(d)
            return root * ops.sqrt(root)
        return ops.power(d, -self.beta)


def select_lrn(
    functions: LRNFunctions, *, training: bool | None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the fastest forward and backward function.

    TensorFlow has no fast kernel for this on a CPU. As single operations, each of which reads and
    writes whole maps, it takes an eighth of AlexNet's training step. XLA compiles it into one loop,
    but again for each number of images and size of the map, and a saved model would need XLA where
    it is served. So only training uses XLA: its batches all have one shape.

    Args:
        functions: The functions, not sliced.
        training: Whether the network is being trained.
    """
    if not training or functions.region != "across" or keras.backend.backend() != "tensorflow":
        return functions.forward, functions.backward
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return functions.forward, functions.backward
    return _compiled(replace(functions, sliced=True))


@functools.lru_cache
def _compiled(functions: LRNFunctions) -> tuple[Callable[..., Any], Callable[..., Any]]:
    # A cache of the module: Keras would export the compiled functions of a layer with it.
    import tensorflow as tf

    return (
        tf.function(functions.forward, jit_compile=True, autograph=False),
        tf.function(functions.backward, jit_compile=True, autograph=False),
    )


# A larger window is no local one; the within-channel kernel has its square.
MAX_SIZE = 1001
CONVENTIONS = ("sum", "mean")
REGIONS = ("across", "within")


@keras.saving.register_keras_serializable(package="cnnkit")
class LocalResponseNormalization(keras.layers.Layer):
    """Local response normalization (Krizhevsky et al. 2012, section 3.3).

    An activation a becomes b = a / (k + alpha * s) ^ beta, where s is the sum of a^2 over a window
    around it. With `region="across"` the window is `size` neighboring channels at the same
    position; with `region="within"`, Caffe's WITHIN_CHANNEL, it is `size` x `size` positions of the
    same channel. Windows are cut at the border.

    The defaults are the constants of the paper. Two conventions for alpha are in use. The paper
    multiplies s by alpha (`"sum"`). cuda-convnet, Caffe and PyTorch first divide alpha by the
    number of cells of a whole window (`"mean"`), so the paper's alpha of 1e-4 is 5e-4 there.

    The layer computes in float32 under every dtype policy, because squares of activations leave the
    range of float16. Under the rules `deconvnet` and `guided` of `backward_rule` the backward pass
    returns the signal unchanged.

    Input and output: (n, h, w, c), float.

    Args:
        size: Cells along each axis of the window, odd.
        alpha: Factor of the sum of squares.
        beta: Exponent.
        k: Constant above 0.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 1 <= size <= MAX_SIZE or size % 2 == 0:
            raise UsageError(
                "`size` must be an odd number",
                expected=f"an odd size from 1 to {MAX_SIZE}",
                received=size,
            )
        if k <= 0 or alpha < 0:
            raise UsageError(
                "`k` must be above 0 and `alpha` at least 0",
                expected="k > 0 and alpha >= 0",
                received=f"{k} and {alpha}",
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
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self._build_at_init()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        cells = self.size if self.region == "across" else self.size**2
        weight = self.alpha / cells if self.alpha_convention == "mean" else self.alpha
        functions = LRNFunctions(self.size, weight, self.beta, self.k, self.region)
        rule = current_rule()
        if keras.backend.backend() == "jax" and self.region == "across":
            return _normalize_on_jax(inputs, replace(functions, sliced=True), rule)
        normalize, gradient = select_lrn(functions, training=training)

        @ops.custom_gradient
        def forward(x: Any) -> tuple[Any, Callable[..., Any]]:
            y, d = normalize(x)

            def backward(*args: Any, upstream: Any = None) -> Any:
                dy = args[0] if upstream is None else upstream
                # Zeiler & Fergus 2013: the deconvnet does not invert the normalization.
                return gradient(x, y, d, dy) if rule == "gradient" else dy

            return y, backward

        return ops.cast(forward(ops.cast(inputs, "float32")), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "k": self.k,
            "alpha_convention": self.alpha_convention,
            "region": self.region,
        }


def _normalize_on_jax(inputs: Any, functions: LRNFunctions, rule: str) -> Any:
    """Return the normalized map, whose backward pass keeps the input and nothing else.

    XLA compiles slices into one loop, which is bound by memory: the input is read in its own dtype,
    and computing its window sums again is faster than reading them.

    Args:
        inputs: (n, h, w, c), any float dtype, that of the output.
        functions: The functions, sliced.
        rule: The backward rule.
    """
    import jax

    dtype = inputs.dtype

    @ops.custom_gradient
    def normalize(x: Any) -> tuple[Any, Callable[..., Any]]:
        def backward(signal: Any) -> Any:
            if rule != "gradient":
                return signal
            gradient = functions.gradient(ops.cast(x, "float32"), ops.cast(signal, "float32"))
            # Without the barrier XLA computes it again in each operation that reads the result.
            return jax.lax.optimization_barrier(ops.cast(gradient, dtype))

        return ops.cast(functions.forward(ops.cast(x, "float32"))[0], dtype), backward

    return normalize(inputs)

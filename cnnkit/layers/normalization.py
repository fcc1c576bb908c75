"""Local response normalization, with a closed-form gradient."""

from __future__ import annotations

import keras
from keras import ops

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers.passes import Passes, passes_of
from cnnkit.layers.rules import current_rule

CONVENTIONS = ("sum", "mean")
REGIONS = ("across", "within")


@keras.saving.register_keras_serializable(package="cnnkit")
class LocalResponseNormalization(keras.layers.Layer):
    """Local response normalization (Krizhevsky et al. 2012, section 3.3).

    b = a / (k + alpha * sum of a^2 over the window) ^ beta, where the window is `size` neighbouring
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
                "The window of a local response normalization has a centre",
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
        passes = Passes(self.size, weight, self.beta, self.k, self.region)
        normalize, derive = passes_of(passes, training=training)
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

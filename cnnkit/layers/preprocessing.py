"""The papers' only preprocessing, inside the network."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from cnnkit.errors import UsageError


@keras.saving.register_keras_serializable(package="cnnkit")
class SubtractMean(keras.layers.Layer):
    """Subtracts the training set's mean from RGB images in 0..255.

    Simonyan & Zisserman 2014 (section 2.1) subtract the mean color, Krizhevsky et al. 2012
    (section 2) the mean of every pixel; neither does anything else to an image. PyTorch's networks
    also divide by the standard deviation. As a layer all of this travels with the weights, in
    `.keras` files as in `.weights.h5` files. Computed in float32 under every dtype policy: half
    precision cannot hold 0..255 to one level.

    Input and output: (n, h, w, 3).

    Args:
        mean: The mean of each channel, (3,), or of each pixel, (h, w, 3), in 0..255. Set it, or
            load weights, before the layer is first traced.
        std: Standard deviation of each channel, (3,), that the difference is divided by; None
            divides by nothing.

    Raises:
        UsageError: If the shapes are others, or a deviation is not above zero.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import SubtractMean
        >>> SubtractMean((100, 110, 120))(np.full((1, 1, 1, 3), 130.0)).numpy().ravel()
        array([30., 20., 10.], dtype=float32)
    """

    def __init__(self, mean, std=None, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.set(mean, std)

    def set(self, mean, std=None) -> None:
        """Takes another mean and deviation; what was traced before keeps the old ones."""
        self.mean = np.asarray(mean, "float64")
        self.std = None if std is None else np.asarray(std, "float64")
        if self.mean.shape[-1:] != (3,) or self.mean.ndim not in (1, 3):
            raise UsageError(
                "The mean is one of RGB images",
                expected="3 values, or (height, width, 3)",
                received=self.mean.shape,
            )
        if self.std is not None and (self.std.shape != (3,) or not (self.std > 0).all()):
            raise UsageError(
                "The standard deviation is one for each channel",
                expected="3 values above zero",
                received=np.array2string(self.std, threshold=3),
            )

    def call(self, inputs):
        width = inputs.shape[2]
        centerd = ops.cast(inputs, "float32") - _of_rows(self.mean, width)
        if self.std is not None:
            centerd = centerd / _of_rows(self.std, width)
        return ops.cast(centerd, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def save_own_variables(self, store):
        store["mean"] = self.mean
        if self.std is not None:
            store["std"] = self.std

    def load_own_variables(self, store):
        # A file from before the mean was stored leaves the configuration's.
        if "mean" in store:
            self.set(store["mean"], store["std"] if "std" in store else None)  # noqa: SIM401

    def get_config(self):
        return {
            **super().get_config(),
            "mean": self.mean.tolist(),
            "std": None if self.std is None else self.std.tolist(),
        }


def _of_rows(values: np.ndarray, width: int | None):
    """Returns a mean or a deviation for whole rows: a CPU takes a third of the time for them."""
    if values.ndim == 1 and width is not None:
        values = np.tile(values, (width, 1))
    return ops.convert_to_tensor(values, "float32")

"""The papers' only preprocessing, inside the network."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="cnnkit")
class SubtractMean(keras.layers.Layer):
    """Subtracts the training set's mean colour from RGB images in 0..255.

    Krizhevsky et al. 2012 (section 2) and Simonyan & Zisserman 2014 (section 2.1) do nothing else
    to an image. As a layer the mean travels with the weights. Subtracted in float32 under every
    dtype policy: half precision cannot hold 0..255 to one level.

    Input and output: (n, h, w, 3).

    Args:
        mean: The mean of each channel, in 0..255.

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import SubtractMean
        >>> SubtractMean((100, 110, 120))(np.full((1, 1, 1, 3), 130.0)).numpy().ravel()
        array([30., 20., 10.], dtype=float32)
    """

    def __init__(self, mean: Sequence[float], **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.mean = tuple(float(value) for value in mean)

    def call(self, inputs):
        centred = ops.cast(inputs, "float32") - ops.convert_to_tensor(self.mean, "float32")
        return ops.cast(centred, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "mean": self.mean}

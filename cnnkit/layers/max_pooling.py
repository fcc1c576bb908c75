"""Max-pooling that rounds the number of positions up."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="cnnkit")
class CeilMaxPooling2D(keras.layers.MaxPooling2D):
    """Max-pooling whose last window may overhang, as in cuda-convnet and Caffe.

    1 + ceil((side - size) / stride) positions: the map is continued by minus infinity on the bottom
    and the right, which never is a maximum, so that even a window of zeros has its switch inside.

    Input: (n, h, w, c), float. Output: (n, h', w', c).

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import CeilMaxPooling2D
        >>> CeilMaxPooling2D(3, 2)(np.ones((1, 110, 55, 1), "float32")).shape
        TensorShape([1, 55, 27, 1])
    """

    def __init__(self, pool_size=3, strides=2, **kwargs):
        kwargs.setdefault("data_format", "channels_last")
        super().__init__(pool_size, strides, **kwargs)

    def call(self, inputs):
        if self._same_is_ceil(inputs.shape[1:3]):
            # Keras's padding is the same here, and spares a copy of the map.
            return ops.max_pool(
                inputs, self.pool_size, self.strides, "same", data_format="channels_last"
            )
        bottom, right = (stride - 1 for stride in self.strides)
        edges = [(0, 0), (0, bottom), (0, right), (0, 0)]
        return super().call(ops.pad(inputs, edges, constant_values=float("-inf")))

    def _same_is_ceil(self, sides) -> bool:
        """Tells whether Keras's "same" continues a map on the bottom and right only, as here."""
        for side, size, stride in zip(sides, self.pool_size, self.strides, strict=True):
            if side is None or side < size:
                return False
            overhang = (-(-side // stride) - 1) * stride + size - side
            # Of one cell "same" puts none in front; of more it would.
            if overhang not in (0, 1) or -(-side // stride) != 1 - (size - side) // stride:
                return False
        return True

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        continued = [
            None if side is None else side + stride - 1
            for side, stride in zip(sides, self.strides, strict=True)
        ]
        return super().compute_output_shape((batch, *continued, channels))

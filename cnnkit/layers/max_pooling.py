"""Max-pooling that rounds the number of positions up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from cnnkit.errors import UsageError


@keras.saving.register_keras_serializable(package="cnnkit")
class CeilMaxPooling2D(keras.layers.MaxPooling2D):
    """Max-pooling whose last window may overhang, as in cuda-convnet and Caffe.

    A side has 1 + ceil((side - size) / stride) positions, less those whose window would begin
    beyond the map, as in PyTorch's `ceil_mode`. The map is padded with minus infinity on the bottom
    and the right, so that the maximum always lies inside the map.

    Input: (n, h, w, c), float. Output: (n, h', w', c).

    Args:
        pool_size: Side of the windows, or (height, width).
        strides: Step of the windows, or (vertical, horizontal).

    Attributes:
        overhang: Rows and columns by which a last window may overhang, at most.

    Raises:
        UsageError: If `padding` is not "valid" or `data_format` not "channels_last".

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers import CeilMaxPooling2D
        >>> CeilMaxPooling2D(3, 2)(np.ones((1, 110, 55, 1), "float32")).shape
        TensorShape([1, 55, 27, 1])
    """

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 3,
        strides: int | tuple[int, int] = 2,
        **kwargs: Any,
    ) -> None:
        for name, only in (("padding", "valid"), ("data_format", "channels_last")):
            if kwargs.setdefault(name, only) != only:
                raise UsageError(
                    f"`{name}` of CeilMaxPooling2D must be {only!r}", received=kwargs[name]
                )
        super().__init__(pool_size, strides, **kwargs)
        self.overhang = tuple(
            min(size, stride) - 1 for size, stride in zip(self.pool_size, self.strides, strict=True)
        )

    def call(self, inputs: Any) -> Any:
        if self._same_pads_after_only(inputs.shape[1:3]):
            # Keras's padding gives the same result without a copy of the map.
            return ops.max_pool(
                inputs, self.pool_size, self.strides, "same", data_format="channels_last"
            )
        bottom, right = self.overhang
        edges = [(0, 0), (0, bottom), (0, right), (0, 0)]
        return super().call(ops.pad(inputs, edges, constant_values=float("-inf")))

    def _same_pads_after_only(self, sides: Sequence[int | None]) -> bool:
        """Return True if Keras's "same" pads only the bottom and the right, as this layer does."""
        for side, size, stride in zip(sides, self.pool_size, self.strides, strict=True):
            if side is None or side < size:
                return False
            overhang = (-(-side // stride) - 1) * stride + size - side
            # "same" puts half of the padding, rounded down, on the top and the left.
            if overhang not in (0, 1) or -(-side // stride) != 1 - (size - side) // stride:
                return False
        return True

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, *sides, channels = input_shape
        padded = [
            None if side is None else side + overhang
            for side, overhang in zip(sides, self.overhang, strict=True)
        ]
        return super().compute_output_shape((batch, *padded, channels))

"""Max-pooling that rounds the number of positions up, and max-pooling that is fast on JAX."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cnnkit.errors import UsageError

# Larger windows are left to the framework: their positions are unrolled, and counted in a byte.
MAX_UNROLLED_POSITIONS = 25


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
        on_jax = keras.backend.backend() == "jax"
        if not on_jax and self._same_pads_after_only(inputs.shape[1:3]):
            # Keras's padding gives the same result without a copy of the map.
            return ops.max_pool(
                inputs, self.pool_size, self.strides, "same", data_format="channels_last"
            )
        bottom, right = self.overhang
        edges = [(0, 0), (0, bottom), (0, right), (0, 0)]
        padded = ops.pad(inputs, edges, constant_values=float("-inf"))
        return _max_pool(self, padded)

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


@keras.saving.register_keras_serializable(package="cnnkit")
class IndexedMaxPooling2D(keras.layers.MaxPooling2D):
    """Max-pooling whose backward pass follows the position of each maximum, for the JAX backend.

    XLA searches the windows again in the backward pass and scatters the signal. This layer keeps
    the position of each maximum, the first among equals, and gathers. Results and gradients are
    those of `keras.layers.MaxPooling2D`. On other backends a file that holds this layer is loaded
    with `keras.layers.MaxPooling2D`.

    Input: (n, h, w, c), float. Output: (n, h', w', c).

    Example:
        >>> import numpy as np
        >>> from cnnkit.layers.max_pooling import IndexedMaxPooling2D
        >>> IndexedMaxPooling2D(3, 2)(np.ones((1, 55, 55, 1), "float32")).shape
        TensorShape([1, 27, 27, 1])
    """

    def call(self, inputs: Any) -> Any:
        return _max_pool(self, inputs)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> keras.layers.MaxPooling2D:
        on_jax = keras.backend.backend() == "jax"
        return (cls if on_jax else keras.layers.MaxPooling2D)(**config)


def max_pooling(size: int, stride: int, *, name: str) -> keras.layers.MaxPooling2D:
    """Return the layer of max-pooling over whole windows that suits the backend.

    Args:
        size: Side of the windows.
        stride: Step of the windows.
        name: Name of the layer.
    """
    on_jax = keras.backend.backend() == "jax"
    kind = IndexedMaxPooling2D if on_jax else keras.layers.MaxPooling2D
    return kind(size, stride, data_format="channels_last", name=name)


def _max_pool(layer: keras.layers.MaxPooling2D, inputs: Any) -> Any:
    """Apply a pooling layer to whole windows."""
    is_plain = layer.padding == "valid" and layer.data_format == "channels_last"
    few = math.prod(layer.pool_size) <= MAX_UNROLLED_POSITIONS
    if keras.backend.backend() == "jax" and is_plain and few:
        return _indexed_max_pool(layer.pool_size, layer.strides, inputs.shape[1:3])(inputs)
    return keras.layers.MaxPooling2D.call(layer, inputs)


@functools.cache
def _indexed_max_pool(
    size: tuple[int, int], strides: tuple[int, int], sides: tuple[int, int]
) -> Callable[[Any], Any]:
    """Return max-pooling of maps (n, *sides, c) for JAX."""
    import jax
    import jax.numpy as jnp

    counts = [(a - b) // step + 1 for a, b, step in zip(sides, size, strides, strict=True)]
    # What the windows of each axis cover, counted from their first cells.
    spans = [(count - 1) * step + 1 for count, step in zip(counts, strides, strict=True)]
    # Windows that a cell can lie in, and how often a stride goes into a side, rounded up.
    overlaps = [-(-a // step) for a, step in zip(size, strides, strict=True)]
    lengths = [-(-a // step) for a, step in zip(sides, strides, strict=True)]
    edges = [
        (0, 0),
        *(
            (a - 1, max(b - count, 0))
            for a, b, count in zip(overlaps, lengths, counts, strict=True)
        ),
        (0, 0),
    ]

    def forward(x: Any) -> tuple[Any, Any]:
        largest = index = None
        for number, (row, column) in enumerate(np.ndindex(*size)):
            cells = x[:, row : row + spans[0] : strides[0], column : column + spans[1] : strides[1]]
            if largest is None:
                largest, index = cells, jnp.zeros(cells.shape, jnp.uint8)
                continue
            # NaN is the maximum of its window, as in XLA.
            found = (cells > largest) | jnp.isnan(cells)
            largest = jnp.where(found, cells, largest)
            index = jnp.where(found, jnp.uint8(number), index)
        return largest, index

    def backward(index: Any, signal: Any) -> tuple[Any]:
        index, padded = jnp.pad(index, edges), jnp.pad(signal, edges)

        def phase(row: int, column: int) -> Any:
            """Return what the cells `row` after a multiple of one stride, and so on, receive."""
            total = jnp.zeros((*signal.shape[:1], *lengths, signal.shape[-1]), jnp.float32)
            for down, across in np.ndindex(*overlaps):
                cell = (row + down * strides[0], column + across * strides[1])
                if cell[0] >= size[0] or cell[1] >= size[1]:
                    continue
                top, left = overlaps[0] - 1 - down, overlaps[1] - 1 - across
                windows = np.s_[:, top : top + lengths[0], left : left + lengths[1]]
                hit = index[windows] == cell[0] * size[1] + cell[1]
                total += jnp.where(hit, padded[windows], 0).astype(jnp.float32)
            return total.astype(signal.dtype)

        rows = [
            jnp.stack([phase(row, column) for column in range(strides[1])], axis=3)
            for row in range(strides[0])
        ]
        cells = jnp.stack(rows, axis=2).reshape(
            -1, lengths[0] * strides[0], lengths[1] * strides[1], signal.shape[-1]
        )
        # Without the barrier XLA gathers again in each operation that reads the result.
        return (jax.lax.optimization_barrier(cells[:, : sides[0], : sides[1]]),)

    pool = jax.custom_vjp(lambda x: ops.max_pool(x, size, strides, "valid", "channels_last"))
    pool.defvjp(forward, backward)
    return pool

"""Which part of its input a position of a layer's output looks at, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from cnnkit.errors import UsageError
from cnnkit.layers import (
    CeilMaxPooling2D,
    Dropout,
    LocalResponseNormalization,
    ReLU,
    SubtractMean,
)

# Layers that look at one place of the map, or at one vector.
POINTWISE = (
    Dropout,
    ReLU,
    SubtractMean,
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.BatchNormalization,
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.Identity,
    keras.layers.LeakyReLU,
    keras.layers.Normalization,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.Softmax,
    keras.layers.SpatialDropout2D,
)

# Layers after which nothing has a place any more.
WHOLE = (
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)


@dataclass(frozen=True)
class Window:
    """How one axis of a layer's output looks at its input.

    Attributes:
        kernel: Places that a window looks at; None is the whole axis.
        stride: Step from one window to the next.
        dilation: Step from one place of a window to the next.
        padding: Places before the first and after the last, below zero where the layer cuts some
            off; None is what TensorFlow calls SAME, which depends on the side.
    """

    kernel: int | None = 1
    stride: int = 1
    dilation: int = 1
    padding: tuple[int, int] | None = (0, 0)

    def extent(self, side: int) -> int:
        """Returns the length of a window over an axis of `side` places, holes included."""
        return side if self.kernel is None else (self.kernel - 1) * self.dilation + 1

    def before(self, side: int) -> int:
        """Returns the places before the first one of an axis of `side` places."""
        if self.padding is not None:
            return self.padding[0]
        return self._same(side) // 2

    def count(self, side: int) -> int:
        """Returns the number of windows over an axis of `side` places, below one if none fits."""
        if self.kernel is None:
            return 1
        padded = side + (self._same(side) if self.padding is None else sum(self.padding))
        return (padded - self.extent(side)) // self.stride + 1

    def _same(self, side: int) -> int:
        windows = -(-side // self.stride)
        return max((windows - 1) * self.stride + self.extent(side) - side, 0)


def known_as(layer, kinds) -> type | None:
    """Returns which of `kinds` a layer computes like: a subclass of one, of the same `call`."""
    if getattr(layer, "quantization_mode", None):
        return None
    for kind in kinds:
        if isinstance(layer, kind) and type(layer).call is kind.call:
            return kind
    return None


def windows(layer) -> tuple[Window, Window] | None:
    """Returns how the rows and the columns of a layer's output look at its input.

    None stands for a layer that is not known here, or that has its channels first.

    Example:
        >>> import keras
        >>> from cnnkit.models.windows import windows
        >>> windows(keras.layers.Conv2D(8, (3, 5), strides=2))[1]
        Window(kernel=5, stride=2, dilation=1, padding=(0, 0))
    """
    if getattr(layer, "data_format", None) == "channels_first":
        return None
    if known_as(layer, POINTWISE):
        return Window(), Window()
    if known_as(layer, WHOLE):
        return Window(None, 0), Window(None, 0)
    if known_as(layer, [keras.layers.Concatenate]):
        # Along another axis than the channels, places would move.
        return (Window(), Window()) if layer.axis in (-1, 3) else None
    if known_as(layer, [LocalResponseNormalization]):
        side = layer.size if layer.region == "within" else 1
        return Window(side, padding=None), Window(side, padding=None)
    if known_as(layer, [keras.layers.ZeroPadding2D]):
        return tuple(Window(padding=tuple(sides)) for sides in layer.padding)
    if known_as(layer, [keras.layers.Cropping2D]):
        return tuple(Window(padding=(-first, -last)) for first, last in layer.cropping)
    if known_as(layer, [CeilMaxPooling2D]):
        return tuple(
            Window(size, stride, padding=(0, stride - 1))
            for size, stride in zip(layer.pool_size, layer.strides, strict=True)
        )
    padding = None if getattr(layer, "padding", None) == "same" else (0, 0)
    if known_as(layer, [keras.layers.MaxPooling2D, keras.layers.AveragePooling2D]):
        return tuple(
            Window(size, stride, padding=padding)
            for size, stride in zip(layer.pool_size, layer.strides, strict=True)
        )
    if known_as(layer, [keras.layers.Conv2D]):
        return tuple(
            Window(*one, padding)
            for one in zip(layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
        )
    return None


def too_small(layer, image_size: Sequence[int]) -> UsageError:
    """Returns the error for an image, (h, w), of whose map no window of a layer has room.

    Example:
        >>> import keras
        >>> from cnnkit.models.windows import too_small
        >>> str(too_small(keras.layers.Conv2D(8, 9, name="conv2"), (7, 20)))
        "The image is too small: layer 'conv2' has no place to look at. Received: 7 x 20."
    """
    return UsageError(
        f"The image is too small: layer {layer.name!r} has no place to look at",
        received=" x ".join(map(str, image_size)),
    )

"""The windows of layers and operations: which positions of its input an output depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from cnnkit.layers import (
    CeilMaxPooling2D,
    Dropout,
    GroupedConv2D,
    LocalResponseNormalization,
    ReLU,
    SubtractMean,
)
from cnnkit.models.graph import Node

# Layers whose output at a position depends on that position of the map alone, as far as their
# activation does too.
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
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Normalization,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.SpatialDropout2D,
    keras.layers.Subtract,
)

# Layers that change images in training only.
AUGMENTATION = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith("Random")
    and name != "RandomCrop"
    or name in ("AlphaDropout", "AugMix", "CutMix", "GaussianDropout", "GaussianNoise", "MixUp")
)

# Layers whose output has no positions.
WHOLE = (
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)

# Activations that compute every value from that value alone. Names are compared without
# underscores: `keras.activations.hard_silu` is the operation `HardSilu`.
_ELEMENTWISE = frozenset((
    "celu", "elu", "exponential", "gelu", "hardshrink", "hardsigmoid", "hardsilu", "hardswish",
    "hardtanh", "leakyrelu", "linear", "logsigmoid", "mish", "relu", "relu6", "selu", "sigmoid",
    "silu", "softshrink", "softplus", "softsign", "sparseplus", "sparsesigmoid", "squareplus",
    "swish", "tanh", "tanhshrink", "threshold",
))  # fmt: skip
# Activations over the channels of a position.
_CHANNELWISE = frozenset((
    "logsoftmax", "softmax", "sparsemax",
))  # fmt: skip
# Operations of `keras.ops` with several inputs or constants that work element by element.
_ARITHMETIC = frozenset((
    "abs", "absolute", "add", "cast", "clip", "divide", "exp", "log", "maximum", "minimum",
    "multiply", "negative", "power", "sqrt", "square", "subtract", "truedivide",
))  # fmt: skip
# Packages whose functions are what their names say.
_LIBRARIES = ("keras", "tensorflow", "jax", "torch")


@dataclass(frozen=True)
class LayerWindow:
    """The windows of a layer along one axis of its input.

    Attributes:
        kernel: Positions in a window; None is the whole axis.
        stride: Step from one window to the next.
        dilation: Step from one position of a window to the next.
        padding: Positions added before the first and after the last one, negative if the layer
            crops; None is TensorFlow's SAME, which depends on the side.
    """

    kernel: int | None = 1
    stride: int = 1
    dilation: int = 1
    padding: tuple[int, int] | None = (0, 0)

    def extent(self, side: int) -> int:
        """Return the length of a window over an axis of `side` positions, gaps included."""
        return side if self.kernel is None else (self.kernel - 1) * self.dilation + 1

    def before(self, side: int) -> int:
        """Return the positions added before the first one of an axis of `side` positions."""
        if self.padding is not None:
            return self.padding[0]
        return self._same(side) // 2

    def count(self, side: int) -> int:
        """Return the number of windows over an axis of `side` positions, below 1 if none fits."""
        if self.kernel is None:
            return 1
        padded = side + (self._same(side) if self.padding is None else sum(self.padding))
        return (padded - self.extent(side)) // self.stride + 1

    def _same(self, side: int) -> int:
        windows = -(-side // self.stride)
        return max((windows - 1) * self.stride + self.extent(side) - side, 0)


def behaves_like(
    layer: keras.Operation, kinds: Iterable[type[keras.layers.Layer]]
) -> type[keras.layers.Layer] | None:
    """Return the first of `kinds` that a layer is an instance of with the same `call`, or None."""
    if getattr(layer, "quantization_mode", None):
        return None
    # Keras tells authors to override `convolution_op` for another convolution.
    convolution = getattr(type(layer), "convolution_op", None)
    for kind in kinds:
        known = getattr(kind, "convolution_op", None), GroupedConv2D.convolution_op
        if isinstance(layer, kind) and type(layer).call is kind.call and convolution in known:
            return kind
    return None


def is_elementwise(activation: Any) -> bool:
    """Return True for an activation that is known to compute each value from that value alone.

    Args:
        activation: An activation function, a layer used as one, or None.

    Example:
        >>> import keras
        >>> from cnnkit.models.layer_window import is_elementwise
        >>> is_elementwise(keras.activations.silu), is_elementwise(lambda x: x - keras.ops.max(x))
        (True, False)
    """
    kinds = (ReLU, keras.layers.ELU, keras.layers.LeakyReLU, keras.layers.ReLU)
    known = bool(behaves_like(activation, kinds)) or _is_one_of(activation, _ELEMENTWISE)
    return activation is None or known


def _is_one_of(function: Any, names: frozenset[str]) -> bool:
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__name__", "").replace("_", "").lower()
    is_function = not isinstance(function, (type, keras.Operation))
    return is_function and name in names and module.split(".")[0] in _LIBRARIES


def _keeps_positions(activation: Any) -> bool:
    """Return True for an activation that computes each position of a map from it alone."""
    if isinstance(activation, keras.layers.Layer):
        return window_of(activation) == (LayerWindow(), LayerWindow())
    return is_elementwise(activation) or _is_one_of(activation, _CHANNELWISE)


def window_of(layer: keras.Operation) -> tuple[LayerWindow, ...] | None:
    """Return the windows of a layer along the rows and along the columns.

    None stands for a layer of an unknown kind, with an activation that is not known to work
    position by position, or with its channels first. See `node_windows` for one call of a layer.

    Example:
        >>> import keras
        >>> from cnnkit.models.layer_window import window_of
        >>> window_of(keras.layers.Conv2D(8, (3, 5), strides=2))[1]
        LayerWindow(kernel=5, stride=2, dilation=1, padding=(0, 0))
    """
    if getattr(layer, "data_format", None) == "channels_first":
        return None
    if not _keeps_positions(getattr(layer, "activation", None)):
        return None
    if behaves_like(layer, POINTWISE) or type(layer) in AUGMENTATION:
        return LayerWindow(), LayerWindow()
    if behaves_like(layer, WHOLE):
        return LayerWindow(None, 0), LayerWindow(None, 0)
    if behaves_like(layer, [keras.layers.Concatenate, keras.layers.Softmax]):
        # Along another axis than the channels, positions would move or mix.
        return (LayerWindow(), LayerWindow()) if layer.axis in (-1, 3) else None
    if behaves_like(layer, [LocalResponseNormalization]):
        side = layer.size if layer.region == "within" else 1
        return LayerWindow(side, padding=None), LayerWindow(side, padding=None)
    if behaves_like(layer, [keras.layers.ZeroPadding2D]):
        return tuple(LayerWindow(padding=tuple(sides)) for sides in layer.padding)
    if behaves_like(layer, [keras.layers.Cropping2D]):
        return tuple(LayerWindow(padding=(-first, -last)) for first, last in layer.cropping)
    if behaves_like(layer, [CeilMaxPooling2D]):
        return tuple(
            LayerWindow(size, stride, padding=(0, overhang))
            for size, stride, overhang in zip(
                layer.pool_size, layer.strides, layer.overhang, strict=True
            )
        )
    padding = None if getattr(layer, "padding", None) == "same" else (0, 0)
    if behaves_like(layer, [keras.layers.MaxPooling2D, keras.layers.AveragePooling2D]):
        return tuple(
            LayerWindow(size, stride, padding=padding)
            for size, stride in zip(layer.pool_size, layer.strides, strict=True)
        )
    if behaves_like(layer, CONVOLUTIONS):
        return tuple(
            LayerWindow(*one, padding)
            for one in zip(layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
        )
    return None


def node_windows(node: Node) -> tuple[LayerWindow, ...] | None:
    """Return the windows of one call of a layer or an operation, or None if they are unknown.

    Args:
        node: A node of `cnnkit.models.graph.build_graph`.

    Example:
        >>> import keras
        >>> from cnnkit.models.graph import build_graph
        >>> from cnnkit.models.layer_window import node_windows
        >>> inputs = keras.Input((8, 8, 3))
        >>> node_windows(build_graph(keras.Model(inputs, inputs / 255.0)).nodes[0])[0].kernel
        1
    """
    if node.operation is None:
        return window_of(node.layer) if node.is_pure and not _broadcasts(node) else None
    return (LayerWindow(), LayerWindow()) if _is_pointwise_operation(node) else None


def _broadcasts(node: Node) -> bool:
    """Return True if maps of different sizes meet, one of which is repeated."""
    return len({shape[1:3] for shape in node.input_shapes if len(shape) == 4}) > 1


def _is_pointwise_operation(node: Node) -> bool:
    name, shape = (node.operation or "").lower(), node.tensors[0].shape
    if len(node.tensors) > 1 or any(one[1:3] != shape[1:3] for one in node.input_shapes):
        return False
    if name in _ELEMENTWISE | _ARITHMETIC:
        return True
    if name == "getitem":
        # All positions, and of each some of the channels.
        [index] = node.record.arguments.args[1:]
        return len(node.input_shapes[0]) == 4 and isinstance(index, tuple) and index[:1] == (...,)
    axis = getattr(node.layer, "axis", None)
    return name in ("concatenate", "flip", "stack", *_CHANNELWISE) and axis in (-1, 3)

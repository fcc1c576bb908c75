"""The deconvnet layer by layer: forward steps up to a layer and backward steps to the pixels.

`cnnkit.visualize.project` computes the same from one gradient, faster and for more models. Here
each step of Zeiler & Fergus 2013 (section 2.1, Fig. 1) can be run and inspected on its own, and
nothing is differentiated:

    forward step    | backward step
    ----------------|--------------------------------------------------------
    pooling         | unpooling by the switches
    rectification   | rectification of the signal
    filtering       | filtering by the transposed filters, without the bias
    normalization   | none
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import RULES, CeilMaxPooling2D, Dropout, LocalResponseNormalization, SubtractMean
from cnnkit.models.graph import Node, build_graph
from cnnkit.models.layer_window import AUGMENTATION, behaves_like
from cnnkit.visualize.forward import check_input_covers_layers, preactivation
from cnnkit.visualize.rule_support import check_supports_rule, is_linear, is_relu


@dataclass(frozen=True)
class Switches:
    """Positions of the maxima in a max-pooling layer's input.

    Attributes:
        indices: (n, h', w', c) int64, for every pooled value the row of its maximum times the width
            of the pooled map plus its column; the first in row-major order among equals.
        input_shape: (n, h, w, c), the shape of the map that was pooled.
    """

    indices: np.ndarray
    input_shape: tuple[int, int, int, int]


def pool_with_switches(
    values: np.ndarray,
    size: int | tuple[int, int] = 2,
    stride: int | tuple[int, int] = 2,
    padding: str = "valid",
) -> tuple[np.ndarray, Switches]:
    """Applies max-pooling and returns the switches too.

    Args:
        values: (n, h, w, c) float.
        size: Side of the windows, or (rows, columns).
        stride: Stride of the windows, or (rows, columns).
        padding: `"valid"` or `"same"`.

    Returns:
        The maxima, (n, h', w', c), and their positions.

    Example:
        >>> import numpy as np
        >>> from cnnkit.visualize import pool_with_switches
        >>> maps = np.array([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1)
        >>> pooled, switches = pool_with_switches(maps)
        >>> pooled.item(), switches.indices.item()
        (5.0, 1)
    """
    pooled, index = tf.nn.max_pool_with_argmax(values, size, stride, padding.upper())
    # TensorFlow's index includes the channel: (row * width + column) * channels + channel.
    return pooled.numpy(), Switches(index.numpy() // values.shape[-1], values.shape)


def unpool(values: np.ndarray, switches: Switches) -> np.ndarray:
    """Moves every value to the position of its maximum; all other values are zero.

    Values of overlapping windows with the same maximum add up, as in the transpose of the pooling.

    Args:
        values: (n, h', w', c), one value for every switch.
        switches: The switches of `pool_with_switches`.

    Returns:
        (n, h, w, c).

    Raises:
        UsageError: If `values` and the switches differ in shape.

    Example:
        >>> import numpy as np
        >>> from cnnkit.visualize import pool_with_switches, unpool
        >>> maps = np.array([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1)
        >>> pooled, switches = pool_with_switches(maps)
        >>> unpool(pooled, switches)[0, :, :, 0]
        array([[0., 5.],
               [0., 0.]])
    """
    values = np.asarray(values)
    if values.shape != switches.indices.shape:
        raise UsageError(
            "`values` must hold one value for every switch",
            expected=switches.indices.shape,
            received=values.shape,
        )
    images, height, width, channels = switches.input_shape
    unpooled = np.zeros((images, height * width, channels), values.dtype)
    image, channel = np.ogrid[:images, :channels]
    for row, column in np.ndindex(values.shape[1:3]):
        unpooled[image, switches.indices[:, row, column], channel] += values[:, row, column]
    return unpooled.reshape(switches.input_shape)


# Layers without a backward step. Dropout and augmentation do nothing outside of training.
SKIPPED_LAYERS = (Dropout, LocalResponseNormalization, keras.layers.Dropout, *AUGMENTATION)


@dataclass(frozen=True)
class LayerwiseStep:
    """One forward step, and its backward step.

    Attributes:
        layer: Name of the layer; a layer that filters and rectifies makes two steps.
        kind: `"filter"`, `"rectify"`, `"pool"` or `"normalize"` as in the paper; `"center"`,
            `"pad"`, `"reshape"`, or `"linear"` for every other linear layer.
        input: (n, ...), input of the forward step.
        output: (n, ...), output of the forward step.
        backward: Function of a signal of the shape of `output` and a rule; it returns a signal of
            the shape of `input`.
        switches: Positions of the maxima if `kind` is `"pool"`, else None.
    """

    layer: str
    kind: str
    input: np.ndarray
    output: np.ndarray
    backward: Callable[[np.ndarray, str], np.ndarray]
    switches: Switches | None = None


def forward_steps(model: keras.Model, images: np.ndarray, layer: str) -> list[LayerwiseStep]:
    """Computes a layer's output step by step, and returns the steps for `backward_steps`.

    Args:
        model: A sequence of convolutions, dense layers, ReLUs, max-pooling, local response
            normalization, dropout, augmentation and linear layers.
        images: (n, h, w, c), as the model takes them.
        layer: Name of a layer.

    Raises:
        UsageError: If there is no such layer, a layer below is of another kind, or the images are
            too small.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import forward_steps
        >>> image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3))
        >>> model = zfnet(include_top=False, input_shape=(64, 64, 3))
        >>> [step.kind for step in forward_steps(model, image, "norm1")]
        ['center', 'pad', 'filter', 'rectify', 'pool', 'normalize']
    """
    graph = build_graph(model)
    nodes = graph.ancestors(graph.node(layer))
    check_supports_rule(nodes, "deconvnet")
    for node in nodes:
        if len(node.inputs) > 1:
            raise _unsupported_layer_error(node.layer)
    x = images = np.asarray(images, np.float32)
    steps: list[LayerwiseStep] = []
    for node in nodes:
        check_input_covers_layers(node, [x], images)
        for step in _layer_steps(node, x):
            steps.append(step)
            x = step.output
    return steps


def backward_steps(
    steps: Sequence[LayerwiseStep], signal: np.ndarray, rule: str = "deconvnet"
) -> np.ndarray:
    """Applies the backward steps to a signal, from the last step down to the pixels.

    Args:
        steps: Steps of `forward_steps`.
        signal: Array of the shape of the last step's `output`; to project one unit, zero elsewhere.
        rule: `"deconvnet"`, `"guided"` or `"gradient"`.

    Returns:
        (n, h, w, c), not rectified.

    Raises:
        UsageError: If there is no such rule, or the rule is `"gradient"` and a step normalizes: the
            derivative of the normalization is not implemented here.

    Example:
        >>> import numpy as np
        >>> from cnnkit import vgg11
        >>> from cnnkit.visualize import forward_steps, backward_steps
        >>> image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
        >>> model = vgg11(include_top=False, input_shape=(32, 32, 3))
        >>> steps = forward_steps(model, image, "block2_pool")
        >>> signal = np.zeros_like(steps[-1].output)
        >>> signal[0, 3, 4, 20] = 1
        >>> backward_steps(steps, signal).shape
        (1, 32, 32, 3)
    """
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    for step in reversed(steps):
        signal = step.backward(signal, rule)
    return signal


def _layer_steps(node: Node, x: np.ndarray) -> Iterator[LayerwiseStep]:
    layer = node.layer
    filters = (keras.layers.Activation, keras.layers.Conv2D, keras.layers.Dense)
    if behaves_like(layer, filters):
        if not isinstance(layer, keras.layers.Activation):
            step = _filter_step(layer, x)
            yield step
            x = step.output
        if is_relu(layer.activation):
            yield _rectify_step(layer, x)
    elif is_relu(layer):
        yield _rectify_step(layer, x)
    elif behaves_like(layer, [keras.layers.MaxPooling2D, CeilMaxPooling2D]):
        yield _pool_step(layer, x)
    elif behaves_like(layer, SKIPPED_LAYERS):
        yield LayerwiseStep(layer.name, "normalize", x, _call(layer, x), _skip(layer))
    elif behaves_like(layer, [SubtractMean]):
        scale = 1 if layer.std is None else layer.std
        yield LayerwiseStep(
            layer.name, "center", x, _call(layer, x), lambda signal, rule: signal / scale
        )
    elif behaves_like(layer, [keras.layers.Flatten]):
        shape = x.shape
        yield LayerwiseStep(
            layer.name, "reshape", x, _call(layer, x), lambda signal, rule: signal.reshape(shape)
        )
    elif behaves_like(layer, [keras.layers.ZeroPadding2D]):
        (top, _), (left, _) = layer.padding
        inside = slice(top, top + x.shape[1]), slice(left, left + x.shape[2])
        yield LayerwiseStep(
            layer.name, "pad", x, _call(layer, x), lambda signal, rule: signal[:, *inside]
        )
    elif is_linear(node) and not isinstance(layer, keras.layers.GlobalMaxPooling2D):
        yield _linear_step(node, x)
    else:
        raise _unsupported_layer_error(layer)


def _linear_step(node: Node, x: np.ndarray) -> LayerwiseStep:
    def backward(signal: np.ndarray, rule: str) -> np.ndarray:
        values = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(values)
            output = node.call([values])
        transposed: np.ndarray = tape.gradient(output, values, tf.constant(signal)).numpy()
        return transposed

    output = keras.ops.convert_to_numpy(node.call([x]))
    return LayerwiseStep(node.layer.name, "linear", x, output, backward)


def _call(layer: keras.layers.Layer, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(x, training=False))


def _filter_step(layer: keras.layers.Layer, x: np.ndarray) -> LayerwiseStep:
    kernel = _undilated_kernel(keras.ops.convert_to_numpy(layer.kernel), layer)

    def backward(signal: np.ndarray, rule: str) -> np.ndarray:
        if isinstance(layer, keras.layers.Dense):
            return signal @ kernel.T
        # Every group has its own filters and channels.
        groups = [
            tf.nn.conv2d_transpose(
                channels,
                filters,
                (*x.shape[:3], filters.shape[2]),
                layer.strides,
                layer.padding.upper(),
            )
            for channels, filters in zip(
                np.split(signal, layer.groups, -1), np.split(kernel, layer.groups, -1), strict=True
            )
        ]
        return np.concatenate(groups, axis=-1)

    output = keras.ops.convert_to_numpy(preactivation(layer, x))
    return LayerwiseStep(layer.name, "filter", x, output, backward)


def _undilated_kernel(kernel: np.ndarray, layer: keras.layers.Layer) -> np.ndarray:
    """Returns a dilated kernel with zeros filled in: TensorFlow cannot transpose it on a CPU."""
    if not isinstance(layer, keras.layers.Conv2D):
        return kernel
    (rows, columns), (height, width) = layer.dilation_rate, kernel.shape[:2]
    shape = (height - 1) * rows + 1, (width - 1) * columns + 1, *kernel.shape[2:]
    spread = np.zeros(shape, kernel.dtype)
    spread[::rows, ::columns] = kernel
    return spread


def _rectify_step(layer: keras.layers.Layer, x: np.ndarray) -> LayerwiseStep:
    def backward(signal: np.ndarray, rule: str) -> np.ndarray:
        if rule != "gradient":
            signal = np.maximum(signal, 0)
        return signal if rule == "deconvnet" else np.where(x > 0, signal, 0)

    return LayerwiseStep(layer.name, "rectify", x, np.maximum(x, 0), backward)


def _pool_step(layer: keras.layers.Layer, x: np.ndarray) -> LayerwiseStep:
    height, width = x.shape[1:3]
    padded = x
    if isinstance(layer, CeilMaxPooling2D):
        # The last window may overhang the map; minus infinity is never a maximum.
        edges = [(0, 0), *((0, overhang) for overhang in layer.overhang), (0, 0)]
        padded = np.pad(x, edges, constant_values=-np.inf)
    output, switches = pool_with_switches(padded, layer.pool_size, layer.strides, layer.padding)

    def backward(signal: np.ndarray, rule: str) -> np.ndarray:
        return unpool(signal, switches)[:, :height, :width]

    return LayerwiseStep(layer.name, "pool", x, output, backward, switches)


def _skip(layer: keras.layers.Layer) -> Callable[[np.ndarray, str], np.ndarray]:
    def backward(signal: np.ndarray, rule: str) -> np.ndarray:
        if rule == "gradient" and isinstance(layer, LocalResponseNormalization):
            raise UsageError(
                f"`rule` must not be 'gradient' here: the step of layer {layer.name!r} skips its"
                " derivative",
                expected="deconvnet or guided",
                received=rule,
            )
        return signal

    return backward


def _unsupported_layer_error(layer: keras.layers.Layer) -> UsageError:
    return UsageError(
        f"Layer {layer.name!r} has no step in the layer-by-layer deconvnet",
        expected="a sequence of convolutions, dense layers, ReLUs, max-pooling, padding, "
        "normalization, dropout and flattening",
        received=type(layer).__name__,
        hint="cnnkit.visualize.project supports more kinds of layers",
    )

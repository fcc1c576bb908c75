"""The deconvnet as its paper draws it: up through the layers, down through their counterparts.

`cnnkit.visualize.deconvnet.project` computes the same from one gradient, faster and for more networks.
Here every step of Zeiler & Fergus 2013 (section 2.1, Fig. 1) can be called and looked at by itself,
and nothing is differentiated:

    pooling         | unpooling by the switches
    rectifying      | rectifying the signal
    filtering       | filtering by the transposed filters, without the bias
    normalization   | nothing
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import RULES, CeilMaxPooling2D, Dropout, LocalResponseNormalization, SubtractMean
from cnnkit.models.graph import build_graph
from cnnkit.models.receptive_field import behaves_like, window_of
from cnnkit.visualize.forward import (
    LAYERS_WITH_ACTIVATION,
    check_input_covers_layers,
    check_supports_rule,
    is_relu,
    preactivation,
)


@dataclass(frozen=True)
class Switches:
    """Where the maxima of a pooling were.

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
    """Returns the maxima of the windows of a map, and where they were.

    Args:
        values: (n, h, w, c) float.
        size: Side of the windows, or (rows, columns).
        stride: Their step, or (rows, columns).
        padding: `"valid"` or `"same"`.

    Example:
        >>> import numpy as np
        >>> from cnnkit.visualize import pool_with_switches
        >>> pooled, switches = pool_with_switches(np.array([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1))
        >>> pooled.item(), switches.indices.item()
        (5.0, 1)
    """
    pooled, index = tf.nn.max_pool_with_argmax(values, size, stride, padding.upper())
    # TensorFlow counts the channels too: (row * width + column) * channels + channel.
    return pooled.numpy(), Switches(index.numpy() // values.shape[-1], values.shape)


def unpool(values: np.ndarray, switches: Switches) -> np.ndarray:
    """Puts every value back to where its maximum was; the rest is zero.

    Overlapping windows may have had the same maximum: then their values add, as it is for the
    transpose of the pooling.

    Args:
        values: (n, h', w', c), one for every switch.
        switches: What `pool` returned.

    Returns:
        (n, h, w, c).

    Raises:
        UsageError: If there is not one value for every switch.

    Example:
        >>> import numpy as np
        >>> from cnnkit.visualize import pool_with_switches, unpool
        >>> pooled, switches = pool_with_switches(np.array([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1))
        >>> unpool(pooled, switches)[0, :, :, 0]
        array([[0., 5.],
               [0., 0.]])
    """
    values = np.asarray(values)
    if values.shape != switches.indices.shape:
        raise UsageError(
            "Unpooling needs one value for every switch",
            expected=switches.indices.shape,
            received=values.shape,
        )
    images, height, width, channels = switches.input_shape
    below = np.zeros((images, height * width, channels), values.dtype)
    image, channel = np.ogrid[:images, :channels]
    for row, column in np.ndindex(values.shape[1:3]):
        below[image, switches.indices[:, row, column], channel] += values[:, row, column]
    return below.reshape(switches.input_shape)


# Passed through on the way down; of dropout nothing is left outside training.
PASSED = (Dropout, LocalResponseNormalization, keras.layers.Dropout)


@dataclass(frozen=True)
class LayerwiseStep:
    """One step up, and the way down again.

    Attributes:
        layer: Name of the layer; one that filters and rectifies makes two steps.
        kind: `"filter"`, `"rectify"`, `"pool"` or `"normalize"` as in the paper; `"center"`,
            `"pad"` or `"reshape"`.
        input: What the step takes.
        output: What it makes of it.
        backward: Takes a signal of the shape of `output` and a rule, returns one of that of `input`.
        switches: Where the maxima were, for `"pool"`.
    """

    layer: str
    kind: str
    input: np.ndarray
    output: np.ndarray
    backward: Callable[[np.ndarray, str], np.ndarray]
    switches: Switches | None = None


def forward_steps(model: keras.Model, images: np.ndarray, layer: str) -> list[LayerwiseStep]:
    """Goes up from the images to a layer and keeps what is needed to come back.

    Args:
        model: A chain of convolutions, dense layers, ReLUs, max-pooling, padding, local response
            normalization, dropout and flattening.
        images: (n, h, w, c), as the model takes them.
        layer: Name of a layer.

    Raises:
        UsageError: If there is no such layer, one on the way is of another kind, or the images are
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
    x = images = np.asarray(images, np.float32)
    steps: list[LayerwiseStep] = []
    for node in nodes:
        if len(node.inputs) > 1:
            raise _no_step(node.layer)
        check_input_covers_layers(node.layer, [x], images)
        for step in _steps(node.layer, x):
            steps.append(step)
            x = step.output
    return steps


def backward_steps(
    steps: Sequence[LayerwiseStep], signal: np.ndarray, rule: str = "deconvnet"
) -> np.ndarray:
    """Comes down from a signal at the top of `steps` to the pixels.

    Args:
        steps: What `climb` returned.
        signal: Of the shape of the last step's `output`; zero but for the unit that is looked at.
        rule: `"deconvnet"`, `"guided"` or `"gradient"`.

    Returns:
        (n, h, w, c), not rectified.

    Raises:
        UsageError: If there is no such rule, or the gradient is asked for through a normalization,
            whose derivative this is not about.

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


def _steps(layer, x: np.ndarray) -> Iterator[LayerwiseStep]:
    if behaves_like(layer, LAYERS_WITH_ACTIVATION):
        if not isinstance(layer, keras.layers.Activation):
            step = _filter(layer, x)
            yield step
            x = step.output
        if is_relu(layer.activation):
            yield _rectify(layer, x)
    elif is_relu(layer):
        yield _rectify(layer, x)
    elif behaves_like(layer, [keras.layers.MaxPooling2D, CeilMaxPooling2D]):
        yield _pool(layer, x)
    elif behaves_like(layer, PASSED):
        yield LayerwiseStep(layer.name, "normalize", x, _answer(layer, x), _passed(layer))
    elif behaves_like(layer, [SubtractMean]):
        scale = 1 if layer.std is None else layer.std
        yield LayerwiseStep(
            layer.name, "center", x, _answer(layer, x), lambda signal, rule: signal / scale
        )
    elif behaves_like(layer, [keras.layers.Flatten]):
        shape = x.shape
        above = _answer(layer, x)
        yield LayerwiseStep(
            layer.name, "reshape", x, above, lambda signal, rule: signal.reshape(shape)
        )
    elif behaves_like(layer, [keras.layers.ZeroPadding2D]):
        (top, _), (left, _) = layer.padding
        inside = slice(top, top + x.shape[1]), slice(left, left + x.shape[2])
        above = _answer(layer, x)
        yield LayerwiseStep(layer.name, "pad", x, above, lambda signal, rule: signal[:, *inside])
    else:
        raise _no_step(layer)


def _answer(layer, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(x, training=False))


def _filter(layer, x: np.ndarray) -> LayerwiseStep:
    kernel = _with_holes(keras.ops.convert_to_numpy(layer.kernel), layer)

    def down(signal: np.ndarray, rule: str) -> np.ndarray:
        if isinstance(layer, keras.layers.Dense):
            return signal @ kernel.T
        # Every tower has filters and channels of its own.
        towers = [
            tf.nn.conv2d_transpose(
                part,
                filters,
                (*x.shape[:3], filters.shape[2]),
                layer.strides,
                layer.padding.upper(),
            )
            for part, filters in zip(
                np.split(signal, layer.groups, -1), np.split(kernel, layer.groups, -1), strict=True
            )
        ]
        return np.concatenate(towers, axis=-1)

    above = keras.ops.convert_to_numpy(preactivation(layer, x))
    return LayerwiseStep(layer.name, "filter", x, above, down)


def _with_holes(kernel: np.ndarray, layer) -> np.ndarray:
    """Returns the kernel as an undilated one: TensorFlow transposes no other on a CPU."""
    if not isinstance(layer, keras.layers.Conv2D):
        return kernel
    (rows, columns), (height, width) = layer.dilation_rate, kernel.shape[:2]
    shape = (height - 1) * rows + 1, (width - 1) * columns + 1, *kernel.shape[2:]
    spread = np.zeros(shape, kernel.dtype)
    spread[::rows, ::columns] = kernel
    return spread


def _rectify(layer, x: np.ndarray) -> LayerwiseStep:
    def down(signal: np.ndarray, rule: str) -> np.ndarray:
        if rule != "gradient":
            signal = np.maximum(signal, 0)
        return signal if rule == "deconvnet" else np.where(x > 0, signal, 0)

    return LayerwiseStep(layer.name, "rectify", x, np.maximum(x, 0), down)


def _pool(layer, x: np.ndarray) -> LayerwiseStep:
    height, width = x.shape[1:3]
    below = x
    if isinstance(layer, CeilMaxPooling2D):
        # Its last window may overhang; below minus infinity nothing is a maximum.
        edges = [(0, 0), *((0, window.padding[1]) for window in window_of(layer)), (0, 0)]
        below = np.pad(x, edges, constant_values=-np.inf)
    above, switches = pool_with_switches(below, layer.pool_size, layer.strides, layer.padding)

    def down(signal: np.ndarray, rule: str) -> np.ndarray:
        return unpool(signal, switches)[:, :height, :width]

    return LayerwiseStep(layer.name, "pool", x, above, down, switches)


def _passed(layer) -> Callable[[np.ndarray, str], np.ndarray]:
    def down(signal: np.ndarray, rule: str) -> np.ndarray:
        if rule == "gradient" and isinstance(layer, LocalResponseNormalization):
            raise UsageError(
                f"The stack passes through {layer.name!r}, which is not its gradient",
                expected="deconvnet or guided",
                received=rule,
            )
        return signal

    return down


def _no_step(layer) -> UsageError:
    return UsageError(
        f"Layer {layer.name!r} is no step of the deconvnet's stack",
        expected="a chain of convolutions, dense layers, ReLUs, max-pooling, padding, "
        "normalization, dropout and flattening",
        received=type(layer).__name__,
        hint="cnnkit.visualize.deconvnet.project goes through more kinds",
    )

"""The forward pass of any model of ours or of Keras, whose way down follows a rule.

The layers are called one by one, with their own variables. A ReLU that is fused into a layer of
Keras's is computed beside it, by one whose backward pass follows `cnnkit.layers.backward_rule`: the
model itself is neither changed nor copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cnnkit.errors import DataError, UsageError
from cnnkit.layers import CeilMaxPooling2D, Dropout, LocalResponseNormalization, ReLU, SubtractMean
from cnnkit.layers.relu import rectify
from cnnkit.models.graph import Graph, Node
from cnnkit.models.receptive_field import behaves_like, too_small_for_layer, window_of

# Linear layers, whose transpose is their derivative (their bias falls away); max-pooling, whose
# derivative is the unpooling with switches; normalization of ours, which follows the rule.
FOLLOWING = (
    CeilMaxPooling2D,
    Dropout,
    LocalResponseNormalization,
    SubtractMean,
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Identity,
    keras.layers.MaxPooling2D,
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)

# Layers that end in an activation.
ACTIVATED = (keras.layers.Activation, keras.layers.Conv2D, keras.layers.Dense)

_RELUS = (keras.activations.relu, keras.ops.relu, tf.nn.relu)
_SOFTMAXES = (keras.activations.softmax, keras.ops.softmax, tf.nn.softmax)


def check_supports_rule(calls: Sequence[Node], rule: str) -> None:
    """Makes sure that the last of `calls` can be projected down by `rule`.

    Raises:
        UsageError: If a layer would pass down something else than the rule says, or is of an
            unknown kind; the layer is named.
    """
    for call in calls:
        layer = call.layer
        known = window_of(layer) is not None and call.is_pure
        if known and (rule == "gradient" or _follows(layer, last=call is calls[-1])):
            continue
        activation = getattr(layer, "activation", None)
        received = type(layer).__name__
        if not call.is_pure:
            received += " with arguments of its own"
        elif activation not in (None, keras.activations.linear):
            name = getattr(activation, "__name__", type(activation).__name__)
            received += f" with activation {name}"
        raise UsageError(
            f"Layer {layer.name!r} does not follow the rule {rule!r} on the way down",
            expected="convolutions, dense layers, pooling, normalization, plain ReLUs, and a "
            "softmax at the end only",
            received=received,
        )


def check_weights(calls: Sequence[Node]) -> None:
    """Makes sure that the weights of `calls` are numbers: a rectifier would make zeros of NaN.

    Raises:
        DataError: If some are not; the layer is named.
    """
    for call in calls:
        for weight in getattr(call.layer, "weights", ()):
            values = tf.convert_to_tensor(weight)
            if not values.dtype.is_floating:
                continue
            # A sum is quick; where it is no number, its terms may be numbers still, but large ones.
            if not (_finite(tf.reduce_sum(values)) or _finite(values)):
                raise DataError(
                    f"Layer {call.layer.name!r} has weights that are not finite",
                    received=weight.path,
                    hint="Its training went astray: take an earlier checkpoint",
                )


def _finite(values) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(values)))


def forward_pass(calls: Sequence[Node], images):
    """Returns what the last of `calls` answers; a softmax there is skipped: its logits.

    Eager where the way down follows: a compiled pass picks other switches among equal maxima, and a
    traced one would keep the rule it was traced under.

    Args:
        calls: From the image to a layer, checked by `check_supports_rule`.
        images: (n, h, w, c) float32 tensor.
    """
    return forward_to(calls, images, calls[-1:])[0]


def forward_to(calls: Sequence[Node], images, wanted: Sequence[Node]) -> list:
    """Returns what each of the `wanted` among `calls` answers, as `forward` does for the last."""
    return forward_from(calls, {0: images}, wanted)


def forward_from(calls: Sequence[Node], known: Mapping[int, Any], wanted: Sequence[Node]) -> list:
    """Returns the same where the pass begins at values that are `known` by their numbers.

    Raises:
        UsageError: If a layer has no place to look at, in a pass of known images. Whoever traces
            this says `autograph=False`: AutoGraph makes another error of it, of many lines.
    """
    last_use = {value: call for call in calls for value in call.inputs}
    last_use |= {call.output: None for call in wanted}
    values = dict(known)
    for call in calls:
        inputs = [values[value] for value in call.inputs]
        check_input_covers_layers(call.layer, inputs, known.get(0))
        values[call.output] = call_layer(call.layer, inputs, last=call is calls[-1])
        for value in set(call.inputs):
            if last_use[value] is call:
                del values[value]
    return [values[call.output] for call in wanted]


def check_input_covers_layers(layer, inputs: Sequence[Any], image) -> None:
    """Makes sure that a window of a layer has room in its inputs.

    TensorFlow does not: its convolution answers an empty map with what lay in memory.

    Args:
        layer: Any layer; those that are not known to look at windows are passed over.
        inputs: What it takes.
        image: (n, h, w, c), which the inputs were computed from; None is not known.

    Raises:
        UsageError: If it has none; the image's size is named.
    """
    if image is None or len(inputs[0].shape) != 4:
        return
    for look, side in zip(window_of(layer) or (), inputs[0].shape[1:3], strict=False):
        if side is not None and look.count(side) < 1:
            raise too_small_for_layer(layer, image.shape[1:3])


def call_layer(layer, inputs, *, last: bool):
    """Returns what a layer makes of its inputs; where it is the last one, a softmax is skipped."""
    if behaves_like(layer, ACTIVATED):
        return apply_activation(layer.activation, preactivation(layer, *inputs), last=last)
    if is_relu(layer) or (last and is_softmax(layer)):
        return apply_activation(layer, *inputs, last=last)
    if behaves_like(layer, [keras.layers.GlobalMaxPooling2D]):
        # As one window: the derivative of a plain maximum would be shared among equal ones.
        pooled = tf.nn.max_pool2d(*inputs, inputs[0].shape[1:3], 1, "VALID")
        return pooled if layer.keepdims else pooled[:, 0, 0]
    return layer(inputs if len(inputs) > 1 else inputs[0], training=False)


def preactivation(layer, x, *, padding: str | None = None):
    """Returns the linear part of an `ACTIVATED` layer, in its dtype policy and by its kernel.

    Args:
        layer: The layer.
        x: What it takes.
        padding: Of a convolution, instead of its own: `"valid"`.
    """
    if isinstance(layer, keras.layers.Activation):
        return x
    x = ops.cast(x, layer.compute_dtype)
    kernel = ops.cast(layer.kernel, layer.compute_dtype)
    if isinstance(layer, keras.layers.Conv2D):
        x = _convolved(layer, x, kernel, padding)
    else:
        x = ops.matmul(x, kernel)
    return x + ops.cast(layer.bias, layer.compute_dtype) if layer.use_bias else x


def _convolved(layer, x, kernel, padding: str | None):
    if padding is None:
        return layer.convolution_op(x, kernel)
    # Group by group: Keras compiles grouped convolutions, whose gradient is slow on a CPU.
    parts = [
        ops.conv(part, kernels, layer.strides, padding, dilation_rate=layer.dilation_rate)
        for part, kernels in zip(
            ops.split(x, layer.groups, -1), ops.split(kernel, layer.groups, -1), strict=True
        )
    ]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, -1)


def apply_activation(activation, x, *, last: bool):
    """Returns a ReLU that follows the rule, or another activation; a softmax that is last not."""
    if is_relu(activation):
        return rectify(x)
    return x if last and is_softmax(activation) else activation(x)


def _follows(layer, *, last: bool) -> bool:
    if behaves_like(layer, ACTIVATED):
        activation = layer.activation
        linear = activation is keras.activations.linear or activation is None
        return linear or is_relu(activation) or (last and is_softmax(activation))
    return bool(behaves_like(layer, FOLLOWING)) or is_relu(layer) or (last and is_softmax(layer))


def is_relu(activation) -> bool:
    """Tells whether a layer or an activation function is max(x, 0) and nothing else."""
    if behaves_like(activation, [keras.layers.ReLU]):
        bent = activation.max_value, activation.negative_slope, activation.threshold
        return bent == (None, 0, 0)
    return activation in _RELUS or bool(behaves_like(activation, [ReLU]))


def is_softmax(activation) -> bool:
    """Tells whether a layer or an activation function is a softmax."""
    return activation in _SOFTMAXES or bool(behaves_like(activation, [keras.layers.Softmax]))


def as_image_batch(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Returns images as a batch, (n, h, w, c) float32, that fits a network.

    Args:
        graph: The network.
        images: (n, h, w, c) or (h, w, c).

    Raises:
        UsageError: If they do not fit.
        DataError: If pixels are not finite.
    """
    images = np.asarray(images, np.float32)
    if images.ndim == 3:
        images = images[None]
    check_image_shape(graph, images.shape)
    for index in np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3))):
        raise DataError(f"Image {index} has pixels that are not finite")
    return images


def check_image_shape(graph: Graph, shape: Sequence[int]) -> None:
    """Makes sure that a batch of images of this shape fits a network.

    Raises:
        UsageError: If it does not.
    """
    expected = graph.image_shape
    fits = len(shape) == 4 and all(
        want is None or want == have for want, have in zip(expected, shape[1:], strict=True)
    )
    if not fits:
        raise UsageError(
            "The images do not fit the network",
            expected=f"(n, {', '.join('any' if side is None else str(side) for side in expected)})",
            received=tuple(shape),
        )


def validate_position(position: Sequence[int], sides: Sequence[int]) -> tuple[int, ...]:
    """Returns a position in a map of these sides.

    Raises:
        UsageError: If there is no such position.
    """
    if len(position) != len(sides) or any(
        not 0 <= index < side for index, side in zip(position, sides, strict=True)
    ):
        raise UsageError(
            "There is no such position in the feature map",
            expected=f"within {' x '.join(map(str, sides)) or 'no map: a dense layer'}",
            received=position,
        )
    return tuple(map(int, position))

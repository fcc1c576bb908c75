"""The forward pass of a model whose backward pass follows a rule.

The layers are called one by one, with their own variables. A ReLU that is fused into a Keras layer
is computed after the layer's linear part, by a ReLU whose backward pass follows
`cnnkit.layers.backward_rule`. The model is neither changed nor copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cnnkit.errors import DataError, UsageError
from cnnkit.layers.relu import relu_with_rule
from cnnkit.models.graph import Graph, Node
from cnnkit.models.layer_window import LayerWindow, behaves_like, node_windows
from cnnkit.models.logits import activation_kind, output_activation
from cnnkit.models.receptive_field import too_small_for_layer
from cnnkit.visualize.input_gradient import without_kernel_gradient
from cnnkit.visualize.rule_support import LAYERS_WITH_ACTIVATION, is_relu

# Checks of a model.


def check_weights(nodes: Sequence[Node]) -> None:
    """Checks that the weights of `nodes` are finite: a ReLU would turn NaN into zero.

    Raises:
        DataError: If some are not; the layer is named.
    """
    for node in nodes:
        for weight in getattr(node.layer, "weights", ()):
            values = tf.convert_to_tensor(weight)
            if not values.dtype.is_floating:
                continue
            # The sum is quick to check. Where it overflows, the terms may still be finite.
            if not (_is_finite(tf.reduce_sum(values)) or _is_finite(values)):
                raise DataError(
                    f"Layer {node.layer.name!r} has weights that are not finite",
                    received=weight.path,
                    hint="The training diverged: take an earlier checkpoint",
                )


def _is_finite(values: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(values)))


# Checks of images.


def as_image_batch(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Returns images as a batch, (n, h, w, c) float32, that fits a model.

    Args:
        graph: The model.
        images: (n, h, w, c) or (h, w, c).

    Raises:
        UsageError: If the images do not fit the model's input.
        DataError: If pixels are not finite.
    """
    try:
        images = np.asarray(images, np.float32)
    except (ValueError, TypeError) as error:
        raise UsageError(
            "`images` must be an array of numbers",
            expected="(n, h, w, c) or (h, w, c)",
            received=error,
        ) from error
    if images.ndim == 3:
        images = images[None]
    check_image_shape(graph, images.shape)
    for index in np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3))):
        raise DataError(f"Image {index} has pixels that are not finite")
    return images


def check_image_shape(graph: Graph, shape: Sequence[int]) -> None:
    """Checks that a batch of images of this shape fits a model.

    Raises:
        UsageError: If it does not.
    """
    expected = graph.image_shape
    fits = len(shape) == 4 and all(
        want is None or want == have for want, have in zip(expected, shape[1:], strict=True)
    )
    if not fits:
        raise UsageError(
            "`images` must have the shape of the model's input",
            expected=f"(n, {', '.join('any' if side is None else str(side) for side in expected)})",
            received=tuple(shape),
        )


def non_finite_error(layer: str, image: int) -> DataError:
    """Returns the error for an image that gives a layer NaN or infinity."""
    return DataError(
        f"Layer {layer!r} has values for image {image} that are not finite",
        hint="Check the image and the weights up to that layer",
    )


def require_windows(node: Node) -> tuple[LayerWindow, ...]:
    """Returns `node_windows(node)`.

    Raises:
        UsageError: If the windows are unknown.
    """
    windows = node_windows(node)
    if windows is None:
        raise UsageError(f"The windows of layer {node.layer.name!r} are unknown")
    return windows


# The forward pass.


def forward_pass(nodes: Sequence[Node], images: tf.Tensor) -> tf.Tensor:
    """Returns the output of the last of `nodes`. A softmax there is skipped: its logits.

    Call it eagerly where the backward pass follows a rule: a compiled pass picks other switches
    among equal maxima, and a traced one keeps the rule that was set while it was traced.

    Args:
        nodes: From the image to a layer, checked by `check_supports_rule`.
        images: (n, h, w, c) float32.
    """
    end = nodes[-1]
    return forward_to(nodes, images, [end], logits=softmaxes([end]))[0]


def softmaxes(nodes: Sequence[Node]) -> list[Node]:
    """Returns those of `nodes` that end in a softmax, fused or not."""
    return [node for node in nodes if output_activation(node.layer) == "softmax"]


def forward_to(
    nodes: Sequence[Node], images: tf.Tensor, wanted: Sequence[Node], *, logits: Sequence[Node] = ()
) -> list[tf.Tensor]:
    """Returns the outputs of the `wanted` ones of `nodes` for images: see `forward_from`."""
    # An operation such as `x[..., ::-1]` would return an array for an array.
    known = {0: tf.convert_to_tensor(images)}
    return forward_from(nodes, known, wanted, logits=logits)


def forward_from(
    nodes: Sequence[Node],
    known: Mapping[int, Any],
    wanted: Sequence[Node],
    *,
    logits: Sequence[Node] = (),
) -> list[tf.Tensor]:
    """Returns the outputs of the `wanted` ones of `nodes`, computed from `known` values.

    Args:
        nodes: Calls in an order in which they can be computed.
        known: Values by their numbers, where the pass begins: `{0: images}` for the whole pass.
        wanted: Calls whose outputs are returned.
        logits: Those of `wanted` whose output is returned as it is before its activation.

    Raises:
        UsageError: If an activation cannot be left out, or the image is known and too small for a
            layer. Trace with `autograph=False`: AutoGraph would replace this error by one of many
            lines.
    """
    last_use = {value: node for node in nodes for value in node.inputs}
    # Layers that are called twice have nodes of their own, so the number of the value is the key.
    wanted_values = {node.output for node in wanted}
    logit_values = {node.output for node in logits}
    values = dict(known)
    results: dict[int, tf.Tensor] = {}
    for node in nodes:
        inputs = [values[value] for value in node.inputs]
        check_input_covers_layers(node, inputs, known.get(0))
        is_result, as_logits = node.output in wanted_values, node.output in logit_values
        if as_logits:
            results[node.output] = output_before_activation(node, inputs)
        if node.output in last_use or (is_result and not as_logits):
            values[node.output] = call_node(node, inputs)
            if is_result and not as_logits:
                results[node.output] = values[node.output]
        for value in set(node.inputs):
            if last_use[value] is node:
                del values[value]
    return [results[node.output] for node in wanted]


def check_input_covers_layers(node: Node, inputs: Sequence[Any], image: Any | None) -> None:
    """Checks that a window of a layer fits into its inputs.

    TensorFlow does not check it: its convolution returns an empty map or uninitialized memory.

    Args:
        node: A call of any layer; layers that are not known to work on windows are skipped.
        inputs: The layer's inputs.
        image: (n, h, w, c), the image that the inputs were computed from; None skips the check.

    Raises:
        UsageError: If it does not fit; the image's size is named.
    """
    windows = node_windows(node) or ()
    if image is None or not windows or len(inputs[0].shape) != 4:
        return
    for window, side in zip(windows, inputs[0].shape[1:3], strict=True):
        if side is not None and window.count(side) < 1:
            raise too_small_for_layer(node.layer, image.shape[1:3])


def call_node(node: Node, inputs: Sequence[Any]) -> Any:
    """Returns the output of a node.

    ReLUs follow the backward rule. Everything else is called as the model itself calls it.
    """
    layer = node.layer
    if is_relu(layer):
        return relu_with_rule(*inputs)
    if behaves_like(layer, LAYERS_WITH_ACTIVATION) and is_relu(layer.activation):
        return relu_with_rule(preactivation(layer, *inputs))
    if _is_strided_pixelwise(layer):
        return layer.activation(preactivation(layer, *inputs))
    if behaves_like(layer, [keras.layers.GlobalMaxPooling2D]):
        # As one window: the derivative of a plain maximum would be shared among equal maxima.
        pooled = tf.nn.max_pool2d(*inputs, inputs[0].shape[1:3], 1, "VALID")
        return pooled if layer.keepdims else pooled[:, 0, 0]
    return node.call(inputs)


def output_before_activation(node: Node, inputs: Sequence[Any]) -> tf.Tensor:
    """Returns the output of a node before its ReLU, softmax, sigmoid or other activation.

    A layer of an unknown kind is taken as it is.

    Raises:
        UsageError: If a layer of an unknown kind ends in a softmax or a sigmoid.
    """
    layer = node.layer
    if behaves_like(layer, LAYERS_WITH_ACTIVATION):
        return preactivation(layer, *inputs)
    if is_relu(layer) or activation_kind(layer) is not None:
        return inputs[0]
    if output_activation(layer) is not None:
        raise UsageError(
            f"The activation of layer {layer.name!r} cannot be separated from the layer",
            expected="a dense layer, a convolution or an activation",
            received=type(layer).__name__,
        )
    return call_node(node, inputs)


def preactivation(
    layer: keras.layers.Layer, x: tf.Tensor, *, padding: str | None = None
) -> tf.Tensor:
    """Returns the linear part of a layer in `LAYERS_WITH_ACTIVATION`, in its dtype policy.

    Args:
        layer: The layer.
        x: The layer's input.
        padding: Padding of a convolution in place of its own: `"valid"`.
    """
    if isinstance(layer, keras.layers.Activation):
        return x
    dtype = layer.compute_dtype
    x = ops.cast(x, dtype)
    if isinstance(layer, keras.layers.SeparableConv2D):
        kernels = [ops.cast(one, dtype) for one in (layer.depthwise_kernel, layer.pointwise_kernel)]
        x = ops.separable_conv(x, *kernels, **_convolution_options(layer, padding))
    elif isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = ops.cast(layer.kernel, dtype)
        x = ops.depthwise_conv(x, kernel, **_convolution_options(layer, padding))
    elif isinstance(layer, keras.layers.Conv2DTranspose):
        options = {**_convolution_options(layer, None), "output_padding": layer.output_padding}
        x = ops.conv_transpose(x, ops.cast(layer.kernel, dtype), **options)
    elif isinstance(layer, keras.layers.Conv2D):
        x = _convolve_with_padding(layer, x, ops.cast(layer.kernel, dtype), padding)
    else:
        x = ops.matmul(x, ops.cast(layer.kernel, dtype))
    if not layer.use_bias:
        return x
    return x + ops.cast(layer.bias, dtype)


def _convolution_options(layer: keras.layers.Layer, padding: str | None) -> dict[str, Any]:
    return {
        "strides": layer.strides,
        "padding": padding or layer.padding,
        "data_format": layer.data_format,
        "dilation_rate": layer.dilation_rate,
    }


def _convolve_with_padding(
    layer: keras.layers.Conv2D, x: tf.Tensor, kernel: tf.Tensor, padding: str | None
) -> tf.Tensor:
    if _is_strided_pixelwise(layer):
        # TensorFlow 2.21 with oneDNN writes beyond the gradient of such a convolution, and aborts.
        rows, columns = layer.strides
        return ops.conv(x[:, ::rows, ::columns], kernel, 1, "valid", "channels_last")
    if padding is None:
        return without_kernel_gradient(
            lambda x: layer.convolution_op(x, kernel), layer, x, kernel, layer.padding
        )

    def convolve(x: tf.Tensor) -> tf.Tensor:
        # Group by group: Keras compiles grouped convolutions, whose gradient is slow on a CPU.
        groups = [
            ops.conv(part, filters, layer.strides, padding, "channels_last", layer.dilation_rate)
            for part, filters in zip(
                ops.split(x, layer.groups, -1), ops.split(kernel, layer.groups, -1), strict=True
            )
        ]
        return groups[0] if len(groups) == 1 else ops.concatenate(groups, -1)

    return without_kernel_gradient(convolve, layer, x, kernel, padding)


def _is_strided_pixelwise(layer: keras.Operation) -> bool:
    """Returns True for a convolution of single pixels that skips pixels."""
    is_pixelwise = behaves_like(layer, [keras.layers.Conv2D]) and layer.kernel_size == (1, 1)
    return bool(is_pixelwise) and layer.groups == 1 and max(layer.strides) > 1


def apply_activation(activation: Any, x: tf.Tensor) -> tf.Tensor:
    """Applies an activation; a ReLU follows the backward rule."""
    return relu_with_rule(x) if is_relu(activation) else activation(x)

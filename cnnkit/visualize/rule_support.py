"""Which layers and operations follow the backward rules of the deconvnet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.layers import CeilMaxPooling2D, Dropout, LocalResponseNormalization, ReLU, SubtractMean
from cnnkit.models.graph import Node
from cnnkit.models.layer_window import AUGMENTATION, behaves_like
from cnnkit.models.logits import activation_kind

# Layers without an activation that follow every rule: linear layers, whose transpose is their
# derivative (the bias drops out); max-pooling, whose derivative is the unpooling with switches; and
# cnnkit's normalization, whose own backward pass reads the rule.
SUPPORTED_LAYERS = (
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
    keras.layers.Permute,
    keras.layers.Rescaling,
    keras.layers.Reshape,
    keras.layers.Resizing,
    keras.layers.SpatialDropout2D,
    keras.layers.UpSampling2D,
    keras.layers.ZeroPadding2D,
)

# Layers with an `activation` argument whose linear part `preactivation` computes.
LAYERS_WITH_ACTIVATION = (
    keras.layers.Activation,
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)

# Operations of `keras.ops` that are linear in the image, whatever their constants; and those that
# are linear if only one of the factors depends on the image.
_LINEAR_OPERATIONS = frozenset((
    "Add", "Subtract", "Negative", "Cast", "Concatenate", "ExpandDims", "Flip", "GetItem", "Mean",
    "Pad", "Reshape", "Split", "Squeeze", "Stack", "Sum", "Transpose", "AveragePool", "MaxPool",
))  # fmt: skip
_PRODUCTS = frozenset(("Multiply", "Divide", "TrueDivide"))

_RELUS = (keras.activations.relu, keras.ops.relu, tf.nn.relu)


def check_supports_rule(nodes: Sequence[Node], rule: str, *, logits: bool = False) -> None:
    """Checks that the last of `nodes` can be projected back to the image by a rule.

    The gradient passes through every layer that TensorFlow differentiates.

    Args:
        nodes: From the image to a layer. A softmax at its end is left out.
        rule: The backward rule.
        logits: Whether a sigmoid at its end is left out too.

    Raises:
        UsageError: If the backward pass of a layer does not follow the rule; the layer is named.
    """
    if rule == "gradient":
        return
    for node in nodes:
        left_out: tuple[str, ...] = ("softmax", "sigmoid") if logits else ("softmax",)
        if _follows_rule(node, left_out if node is nodes[-1] else ()):
            continue
        layer = node.layer
        activation = getattr(layer, "activation", None)
        received = type(layer).__name__
        if node.operation is None and not node.is_pure:
            received += " with extra call arguments"
        elif activation not in (None, keras.activations.linear):
            name = getattr(activation, "__name__", type(activation).__name__)
            received += f" with activation {name}"
        raise UsageError(
            f"Layer {layer.name!r} does not support the backward rule {rule!r}",
            expected="linear layers, pooling, normalization, plain ReLUs, and a softmax at the end "
            "only",
            received=received,
            hint="Take `rule='gradient'`, saliency or gradcam, or a layer below it",
        )


def _follows_rule(node: Node, left_out: Sequence[str]) -> bool:
    layer = node.layer
    if is_relu(layer) or activation_kind(layer) in left_out or is_linear(node):
        return True
    if not behaves_like(layer, LAYERS_WITH_ACTIVATION) or not node.is_pure:
        return False
    return is_relu(layer.activation) or activation_kind(layer.activation) in left_out


def is_linear(node: Node) -> bool:
    """Returns True for a node that is linear in the image, or a pooling or a normalization."""
    layer = node.layer
    if node.operation is not None:
        tensors = keras.tree.flatten((node.record.arguments.args, node.record.arguments.kwargs))
        is_quotient = node.operation != "Multiply" and not keras.backend.is_keras_tensor(tensors[0])
        is_product = node.operation in _PRODUCTS and len(node.inputs) == 1 and not is_quotient
        return is_product or node.operation in _LINEAR_OPERATIONS
    if node.record is None or not node.is_pure:
        return node.record is None
    if behaves_like(layer, LAYERS_WITH_ACTIVATION):
        return layer.activation in (None, keras.activations.linear)
    return type(layer) in AUGMENTATION or bool(behaves_like(layer, SUPPORTED_LAYERS))


def is_relu(activation: Any) -> bool:
    """Returns True for a layer or an activation function that is max(x, 0) and nothing else."""
    if behaves_like(activation, [keras.layers.ReLU]):
        options = activation.max_value, activation.negative_slope, activation.threshold
        return options == (None, 0, 0)
    if isinstance(activation, keras.Operation) and not isinstance(activation, keras.layers.Layer):
        # The node of `keras.ops.relu(x)`.
        return type(activation).__name__ == "Relu"
    return activation in _RELUS or bool(behaves_like(activation, [ReLU]))


def is_softmax(activation: Any) -> bool:
    """Returns True for a softmax, as a layer or as an activation function."""
    return activation_kind(activation) == "softmax"

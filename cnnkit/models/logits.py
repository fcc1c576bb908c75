"""How a classifier ends: in a softmax, in sigmoids, or in its logits."""

from __future__ import annotations

from typing import Any

import keras

from cnnkit.errors import UsageError
from cnnkit.layers import ClassBoxes
from cnnkit.models.graph import input_output_tensors, made_by
from cnnkit.models.layer_window import behaves_like

# Activation functions by the name of the function that they compute.
_FUNCTIONS = {
    "softmax": (keras.activations.softmax, keras.ops.softmax),
    "sigmoid": (keras.activations.sigmoid, keras.ops.sigmoid),
}
# The same as functions of TensorFlow, whose softmax has another name there.
_TENSORFLOW_NAMES = {"softmax_v2": "softmax", "softmax": "softmax", "sigmoid": "sigmoid"}


def activation_kind(activation: Any) -> str | None:
    """Return `"softmax"` or `"sigmoid"` for an activation function or a layer that is one.

    None stands for everything else.

    Example:
        >>> import keras
        >>> from cnnkit.models.logits import activation_kind
        >>> activation_kind(keras.activations.sigmoid), activation_kind(keras.layers.Softmax())
        ('sigmoid', 'softmax')
    """
    for name, functions in _FUNCTIONS.items():
        if activation in functions:
            return name
    if behaves_like(activation, [keras.layers.Softmax]):
        return "softmax"
    if isinstance(activation, keras.Operation) and not isinstance(activation, keras.Layer):
        # An operation of `keras.ops` in the graph.
        name = type(activation).__name__.lower()
        return name if name in _FUNCTIONS else None
    if str(getattr(activation, "__module__", "")).startswith("tensorflow."):
        return _TENSORFLOW_NAMES.get(getattr(activation, "__name__", ""))
    return None


def output_layer(model: keras.Model) -> keras.Operation | None:
    """Return the layer that makes the only output of a model; models used as layers are opened.

    None stands for a model with several outputs, or without a graph of layers.

    Example:
        >>> import keras
        >>> from cnnkit import vgg11
        >>> from cnnkit.models.logits import output_layer
        >>> inner = vgg11(input_shape=(32, 32, 3))
        >>> output_layer(keras.Sequential([keras.Input((32, 32, 3)), inner])).name
        'probabilities'
    """
    try:
        _, outputs = input_output_tensors(model)
    except UsageError:
        return None
    if len(outputs) != 1:
        return None
    layer, _, inner = made_by(outputs[0])
    while inner is not None:
        layer, _, inner = made_by(inner)
    return layer


def output_activation(model: keras.Model | keras.Operation) -> str | None:
    """Return `"softmax"` or `"sigmoid"` if a model, or a layer, ends in it, else None.

    Args:
        model: A model with one output, or a layer.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models.logits import output_activation
        >>> output_activation(vgg11(input_shape=(32, 32, 3)))
        'softmax'
    """
    layer = output_layer(model) if isinstance(model, keras.Model) else model
    return activation_kind(layer) or activation_kind(getattr(layer, "activation", None))


def logits_tensor(model: keras.Model) -> keras.KerasTensor:
    """Return the symbolic tensor of the logits: the input of a final softmax, else the output.

    A model used as the last layer is opened. The boxes of a localizer follow its logits.

    Raises:
        UsageError: If the softmax is fused into the last layer, so that no tensor holds the
            logits, or the model has several outputs.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models import logits_tensor
        >>> logits_tensor(vgg11(input_shape=(32, 32, 3))).shape
        (None, 1000)
    """
    _, outputs = input_output_tensors(model)
    if len(outputs) != 1:
        raise UsageError(
            f"Model {model.name!r} must have one output", received=f"{len(outputs)} outputs"
        )
    return _without_softmax(outputs[0])


def _without_softmax(tensor: keras.KerasTensor) -> keras.KerasTensor:
    layer, inputs, inner = made_by(tensor)
    if inner is not None:
        logits = _without_softmax(inner)
        if logits is inner:
            return tensor
        # A list of one tensor would be another structure than the one that Keras is called with.
        single = len(inputs) == 1
        part = keras.Model(layer.inputs[0] if single else layer.inputs, logits, name=layer.name)
        return part(inputs[0] if single else list(inputs))
    activation = getattr(layer, "activation", None)
    alone = isinstance(layer, keras.layers.Activation) and activation_kind(activation) == "softmax"
    if alone or activation_kind(layer) == "softmax" or isinstance(layer, ClassBoxes):
        return inputs[0]
    if activation_kind(activation) == "softmax":
        raise UsageError(
            f"Layer {layer.name!r} ends in a fused softmax, so no tensor holds its logits",
            expected="a softmax in a layer of its own, or none",
        )
    return tensor

"""Finding a layer by the name that the field gives it."""

from __future__ import annotations

import keras

from cnnkit.errors import UsageError, unknown_name

# VGG's dense layers go by Caffe's names too.
ALIASES = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """Returns the layer called `name`; `fc6 fc7 fc8` also name VGG's `fc1 fc2 predictions`.

    Raises:
        UsageError: If there is no such layer; nearest names are offered.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models import find_layer
        >>> find_layer(vgg11(input_shape=(32, 32, 3)), "fc7").name
        'fc2'
    """
    layers = {layer.name: layer for layer in model.layers}
    for candidate in (name, ALIASES.get(name)):
        if candidate in layers:
            return layers[candidate]
    raise unknown_name("layer", name, layers)


def logits_of(model: keras.Model):
    """Returns the symbolic tensor of the logits: what a softmax at the end takes, else the output.

    Raises:
        UsageError: If the softmax is fused into the last layer, so that no tensor holds the logits.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models import logits_of
        >>> logits_of(vgg11(input_shape=(32, 32, 3))).shape
        (None, 1000)
    """
    last = model.layers[-1]
    if is_softmax(last):
        return last.input
    if getattr(last, "activation", None) is keras.activations.softmax:
        raise UsageError(
            f"Layer {last.name!r} ends in a fused softmax, so its logits are no tensor",
            expected="a softmax in a layer of its own, or none",
        )
    return model.output


def is_softmax(layer: keras.layers.Layer) -> bool:
    """Tells whether `layer` is a softmax and nothing else."""
    return isinstance(layer, keras.layers.Softmax) or (
        isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.softmax
    )

"""Models from the image to the output of a layer."""

from __future__ import annotations

import keras

from cnnkit._network_outline import ALIASES
from cnnkit.errors import UsageError
from cnnkit.layers import SubtractMean
from cnnkit.models.graph import (
    get_layer,
    input_output_tensors,
    layer_outputs,
    read_nodes,
)
from cnnkit.models.surgery import to_fully_convolutional


def feature_extractor(model: keras.Model, *layers: str) -> keras.Model:
    """Return the model from the image to the outputs of layers, with shared weights.

    Args:
        model: A functional or sequential model over one batch of images.
        layers: Names of its layers; `fc6 fc7 fc8` also name VGG's dense layers. A model used as a
            layer counts as one, and its own layers can be named too.

    Raises:
        UsageError: If there is no such layer (the error offers the nearest names), the layer is
            called more than once, or the model does not take RGB or gray images alone.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models.feature_extractor import feature_extractor
        >>> feature_extractor(vgg11(input_shape=(32, 32, 3)), "fc7").output_shape
        (None, 4096)
    """
    inputs, _ = input_output_tensors(model)
    shapes = [tuple(one.shape) for one in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] not in (1, 3):
        raise UsageError(
            f"Model {model.name!r} does not take RGB or gray images alone",
            expected="one input of shape (n, h, w, 3) or (n, h, w, 1)",
            received=", ".join(map(str, shapes)),
        )
    ends = [_output(model, layer) for layer in layers]
    return keras.Model(inputs[0], ends if len(ends) > 1 else ends[0], name=model.name)


def _output(model: keras.Model, layer: str) -> keras.KerasTensor:
    inner = [] if _has_layer(model, layer) else _models_with_layer(model, layer)
    if len(inner) > 1:
        raise UsageError(
            f"Layer {layer!r} is in {len(inner)} models used as layers of {model.name!r}",
            expected="a layer with a name of its own",
            received=", ".join(one.name for one in inner),
        )
    if inner:
        [part] = inner
        calls = [node for node in read_nodes(model, expand=False) if node.layer is part]
        if len(calls) != 1:
            raise UsageError(
                f"Model {part.name!r}, with layer {layer!r}, is called {len(calls)} times",
                expected="a model that is called once",
            )
        below = keras.Model(part.inputs, _output(part, layer), name=part.name)
        tensors = calls[0].record.input_tensors
        return below(tensors[0] if len(tensors) == 1 else list(tensors))
    outputs = layer_outputs(model, get_layer(model, layer))
    if len(outputs) != 1:
        raise UsageError(
            f"Layer {layer!r} of {model.name!r} has {len(outputs)} outputs",
            expected="a layer that is called once and has one output",
        )
    return outputs[0]


def _has_layer(model: keras.Model, name: str) -> bool:
    return bool({name, ALIASES.get(name)} & {layer.name for layer in model.layers})


def _models_with_layer(model: keras.Model, name: str) -> list[keras.Model]:
    """Return the models used as layers that have a layer of this name, at any depth."""
    models = [one for one in model.layers if isinstance(one, keras.Model)]
    return [one for one in models if _has_layer(one, name) or _models_with_layer(one, name)]


def with_variable_input_size(model: keras.Model, *layers: str) -> keras.Model:
    """Return the model from images of any size to the outputs of layers.

    A model for images of one size is copied. Dense layers after a Flatten become convolutions, as
    by `cnnkit.models.to_fully_convolutional`.

    Args:
        model: As `feature_extractor` takes it.
        layers: Names of its layers.

    Raises:
        UsageError: As `feature_extractor` raises it, or if layers need maps of one size.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models.feature_extractor import with_variable_input_size
        >>> with_variable_input_size(vgg11(input_shape=(32, 32, 3), classes=2), "fc2").output_shape
        (None, None, None, 4096)
    """
    part = feature_extractor(model, *layers)
    if None in part.input_shape[1:3]:
        return part
    for one in part.layers:
        if isinstance(one, SubtractMean) and one.mean.ndim == 3:
            raise UsageError(
                f"Model {model.name!r} subtracts a mean image and takes images of that size only",
                expected="a mean color",
                received=f"a mean image of {one.mean.shape[0]} x {one.mean.shape[1]}",
            )
    if any(isinstance(one, keras.layers.Flatten) for one in part.layers):
        return feature_extractor(to_fully_convolutional(model), *layers)
    try:
        inputs = keras.Input((None, None, part.input_shape[3]))
        free = keras.models.clone_model(part, input_tensors=inputs)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"Model {model.name!r} takes images of one size only",
            expected="layers that take maps of any size",
            received=str(error).splitlines()[0],
        ) from error
    free.set_weights(part.get_weights())
    return free

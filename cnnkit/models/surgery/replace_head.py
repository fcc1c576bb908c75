"""Replace the last layer of a network."""

from __future__ import annotations

import keras

from cnnkit.errors import UsageError
from cnnkit.layers import ClassProbabilities
from cnnkit.models.surgery.fully_convolutional import POSITIONWISE, is_window
from cnnkit.models.surgery.sequential import (
    ChainLayer,
    SurgeryResult,
    as_sequential,
    build_model,
    copy_layers,
    is_positive_int,
    layers_with_weights,
    rebuild_layer,
)


def replace_head(model: keras.Model, classes: int) -> SurgeryResult:
    """Return the same network with a new last layer, for another number of classes.

    A trained network starts on another task this way (Zeiler & Fergus 2013, section 5.2). The layer
    of the logits is reinitialized, all layers before it keep their weights, and a softmax stays.
    The new layer keeps its name. It is trainable even if the other layers are frozen.

    Args:
        model: A chain of layers that ends in a dense layer, or in a convolution without padding
            (as `to_fully_convolutional` makes it), and activations.
        classes: Number of classes.

    Returns:
        A `SurgeryResult` with the new model.

    Raises:
        UsageError: If the model has no such layer at its end, or `classes` is less than 1.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import replace_head
        >>> replace_head(alexnet(input_shape=(64, 64, 3), classes=3), 5).model.output_shape
        (None, 5)
    """
    if not is_positive_int(classes):
        raise UsageError(
            "`classes` must be at least 1", expected="a whole number >= 1", received=repr(classes)
        )
    chain = as_sequential(model)
    weighted = layers_with_weights(chain.layers)
    last = weighted[-1] if weighted else chain.layers[-1]
    position = chain.index(last.name)
    after = chain.layers[position + 1 :]
    # A dense evaluation may average the map of scores inside the model.
    ends = (*POSITIONWISE, keras.layers.GlobalAveragePooling2D)
    if isinstance(last, keras.layers.Dense):
        new = rebuild_layer(last, units=int(classes))
    elif is_window(last) and all(isinstance(layer, ends) for layer in after):
        new = rebuild_layer(last, filters=int(classes))
    else:
        raise UsageError(
            f"Model {chain.name!r} has no head to replace",
            expected="a dense layer, or a convolution without padding, before the last activation",
            received=f"{type(chain.layers[-1]).__name__} {chain.layers[-1].name!r} at the end",
        )
    tail = [
        # The class names belong to the old classes.
        ChainLayer(rebuild_layer(layer, class_names=None), None)
        if isinstance(layer, ClassProbabilities)
        else part
        for layer, part in zip(after, copy_layers(after), strict=True)
    ]
    parts = [*copy_layers(chain.layers[:position]), ChainLayer(new, None), *tail]
    copied = tuple(layer.name for layer in weighted[:-1])
    return SurgeryResult(build_model(chain, parts), copied, (last.name,))

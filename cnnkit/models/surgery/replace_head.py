"""The same network for other classes."""

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
    carry_weights,
    is_positive_int,
    rebuild_layers,
    with_layer_weights,
)


def replace_head(model: keras.Model, classes: int) -> SurgeryResult:
    """Returns the same network with a new last layer, for another number of classes.

    This is how a trained network begins on another task (Zeiler & Fergus 2013, section 5.2): the
    layer of the logits is made anew by its own initializer, everything before it comes along, and
    the softmax stays where there is one. The new layer keeps its name and can be trained, also
    where the layers that came along are frozen.

    Args:
        model: A chain of layers that ends in a dense layer, or in a convolution without padding
            (as `to_fully_convolutional` makes it), and activations.
        classes: Number of classes.

    Returns:
        A `SurgeryResult`: the new model, and the layers that came along or are fresh.

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
            "A classifier has classes", expected="a whole number >= 1", received=repr(classes)
        )
    chain = as_sequential(model)
    weighted = with_layer_weights(chain.layers)
    last = weighted[-1] if weighted else chain.layers[-1]
    position = chain.index(last.name)
    after = chain.layers[position + 1 :]
    # A dense evaluation may average the map of scores inside the model.
    ends = (*POSITIONWISE, keras.layers.GlobalAveragePooling2D)
    if isinstance(last, keras.layers.Dense):
        new = rebuild_layers(last, units=int(classes))
    elif is_window(last) and all(isinstance(layer, ends) for layer in after):
        new = rebuild_layers(last, filters=int(classes))
    else:
        raise UsageError(
            f"Model {chain.name!r} has no head to replace",
            expected="a dense layer, or a convolution without padding, before the last activation",
            received=f"{type(chain.layers[-1]).__name__} {chain.layers[-1].name!r} at the end",
        )
    tail = [
        # The names were those of the other classes.
        ChainLayer(rebuild_layers(layer, class_names=None), None)
        if isinstance(layer, ClassProbabilities)
        else part
        for layer, part in zip(after, carry_weights(after), strict=True)
    ]
    parts = [*carry_weights(chain.layers[:position]), ChainLayer(new, None), *tail]
    carried = tuple(layer.name for layer in weighted[:-1])
    return SurgeryResult(build_model(chain, parts), carried, (last.name,))

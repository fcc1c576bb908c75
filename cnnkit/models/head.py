"""The end of every network: two hidden layers and the classes, or pooled features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import Dropout, ReLU

HIDDEN_UNITS = 4096
POOLINGS = ("avg", "max")


def finish(
    x,
    *,
    names: Sequence[str],
    include_top: bool,
    pooling: str | None,
    classes: int,
    classifier_activation: str | None,
    dropout: float,
    hidden_initializers: Callable[[], dict],
    output_initializers: Callable[[], dict],
):
    """Returns the network's output tensor from its last feature map.

    The classes come in two layers: `names[2]`, whose output is the logits, and `probabilities`.
    Both are float32 under every dtype policy, because top-k accuracy and a softmax over a thousand
    classes need it.

    Args:
        x: Last feature map, (n, h, w, c).
        names: Names of the two hidden layers and of the logits.
        include_top: Whether to add the three dense layers.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits, or None for the logits themselves.
        dropout: Fraction dropped after each hidden layer.
        hidden_initializers: Makes the initializer arguments of a hidden layer.
        output_initializers: The same for the logits.

    Raises:
        UsageError: If `pooling` is unknown or given with the top, or `classes` is less than 1.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    if not include_top:
        if pooling == "avg":
            return keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
        if pooling == "max":
            return keras.layers.GlobalMaxPooling2D(name="global_pool")(x)
        return x
    if pooling is not None:
        raise UsageError(
            "Pooling replaces the dense head",
            expected="pooling=None, or include_top=False",
            received=f"pooling={pooling!r}, include_top=True",
        )
    if classes < 1:
        raise UsageError("A classifier has classes", expected="classes >= 1", received=classes)
    x = keras.layers.Flatten(name="flatten")(x)
    for name in names[:2]:
        x = keras.layers.Dense(HIDDEN_UNITS, activation=ReLU(), name=name, **hidden_initializers())(
            x
        )
        x = Dropout(dropout, name=f"{name}_dropout")(x)
    logits = keras.layers.Dense(classes, dtype="float32", name=names[2], **output_initializers())(x)
    if classifier_activation is None:
        return logits
    return keras.layers.Activation(classifier_activation, dtype="float32", name="probabilities")(
        logits
    )

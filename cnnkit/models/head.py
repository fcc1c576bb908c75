"""The end of every network: hidden layers and the classes, or pooled features."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import Dropout, Probabilities
from cnnkit.models.activations import fused

HIDDEN_UNITS = 4096
POOLINGS = ("avg", "max")


@dataclass(frozen=True)
class Head:
    """The dense layers at the end.

    Attributes:
        names: Names of the hidden layers and, last, of the logits.
        units: Units of a hidden layer.
        dropout: Fraction dropped at each hidden layer.
        dropout_first: Whether the dropout comes before its hidden layer instead of after it.
        activation: Activation of the hidden layers.
    """

    names: tuple[str, ...]
    units: int = HIDDEN_UNITS
    dropout: float = 0.5
    dropout_first: bool = False
    activation: str = "relu"

    def without(self, names: Collection[str]) -> Head:
        """Returns the head without the hidden layers `names`."""
        return replace(self, names=tuple(name for name in self.names if name not in names))


def finish(
    x,
    head: Head,
    *,
    include_top: bool,
    pooling: str | None,
    classes: int,
    classifier_activation: str | None,
    hidden_initializers: Callable[[], dict],
    output_initializers: Callable[[], dict],
):
    """Returns the network's output tensor from its last feature map.

    The classes come in two layers: the logits, and `probabilities`. Both are float32 under every
    dtype policy, because top-k accuracy and a softmax over a thousand classes need it.

    Args:
        x: Last feature map, (n, h, w, c).
        head: The dense layers.
        include_top: Whether to add them.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits, or None for the logits themselves.
        hidden_initializers: Makes the initializer arguments of a hidden layer.
        output_initializers: The same for the logits.

    Raises:
        UsageError: If `pooling` is unknown or given with the top, or there are less than one class
            or hidden unit.
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
    if classes < 1 or head.units < 1:
        raise UsageError(
            "A classifier has classes and hidden units",
            expected="classes >= 1 and hidden_units >= 1",
            received=f"classes={classes}, hidden_units={head.units}",
        )
    x = keras.layers.Flatten(name="flatten")(x)
    *hidden, logits = head.names
    for name in hidden:
        dense = keras.layers.Dense(
            head.units,
            activation=fused(head.activation),
            name=name,
            **hidden_initializers(),
        )
        dropout = Dropout(head.dropout, name=f"{name}_dropout")
        x = dense(dropout(x)) if head.dropout_first else dropout(dense(x))
    x = keras.layers.Dense(classes, dtype="float32", name=logits, **output_initializers())(x)
    if classifier_activation is None:
        return x
    return Probabilities(classifier_activation, dtype="float32", name="probabilities")(x)

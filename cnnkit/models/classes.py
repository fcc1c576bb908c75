"""What a network's classes are called."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from cnnkit.errors import UsageError
from cnnkit.layers import Probabilities


def class_names(model: keras.Model) -> tuple[str, ...] | None:
    """Returns the names of the classes that travel with a model, or None.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models import class_names
        >>> class_names(alexnet(classes=2, input_shape=(64, 64, 3))) is None
        True
    """
    last = model.layers[-1]
    return last.class_names if isinstance(last, Probabilities) else None


def name_classes(model: keras.Model, names: Sequence[str]) -> None:
    """Gives the classes of a model their names, which are saved with it.

    A model that ends in its logits has no place for them and is left as it is.

    Raises:
        UsageError: If the number of names is not that of the classes.
    """
    classes = model.output_shape[-1]
    if len(names) != classes:
        raise UsageError(
            f"The class names do not fit {model.name}",
            expected=f"{classes} names",
            received=len(names),
        )
    if isinstance(model.layers[-1], Probabilities):
        model.layers[-1].class_names = tuple(names)

"""What a network's classes are called."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import ClassProbabilities


def class_names(model: keras.Model) -> tuple[str, ...] | None:
    """Returns the names of the classes that travel with a model, or None.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models import class_names
        >>> class_names(alexnet(classes=2, input_shape=(64, 64, 3))) is None
        True
    """
    last = model.layers[-1]
    return last.class_names if isinstance(last, ClassProbabilities) else None


def class_index(model: keras.Model, label: int | str) -> int:
    """Returns which class is called `label`; a number, as digits too, where names do not say so.

    Raises:
        UsageError: If there is no such class; nearest names are offered.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models import class_index
        >>> class_index(alexnet(classes=2, input_shape=(64, 64, 3)), "1")
        1
    """
    names, classes = class_names(model) or (), model.output_shape[-1]
    if label in names:
        return names.index(label)
    try:
        index = int(label)
    except ValueError:
        hint = "" if names else f"Its classes have no names: give a number, 0 to {classes - 1}"
        raise unknown_name("class", str(label), names, hint=hint) from None
    if not 0 <= index < classes:
        raise UsageError(
            f"Model {model.name!r} has no class {label}",
            expected=f"0 to {classes - 1}",
            received=label,
        )
    return index


def set_class_names(model: keras.Model, names: Sequence[str]) -> None:
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
    if isinstance(model.layers[-1], ClassProbabilities):
        model.layers[-1].class_names = tuple(names)

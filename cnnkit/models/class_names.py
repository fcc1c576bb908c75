"""Names of the classes of a network."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import ClassProbabilities


def class_names(model: keras.Model) -> tuple[str, ...] | None:
    """Return the class names that are saved with a model, or None.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models import class_names
        >>> class_names(alexnet(classes=2, input_shape=(64, 64, 3))) is None
        True
    """
    last = model.layers[-1]
    return last.class_names if isinstance(last, ClassProbabilities) else None


def class_index(model: keras.Model, label: int | str) -> int:
    """Return the index of a class given by name or number.

    Args:
        model: A classifier.
        label: A class name, or an index as a number or in digits. A name comes first.

    Raises:
        UsageError: If there is no such class. The error offers the nearest names.

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
    """Set the class names of a model, which are saved with it.

    A model that ends in its logits has no layer to hold them and is left unchanged.

    Raises:
        UsageError: If the number of names is not the number of classes.
    """
    classes = model.output_shape[-1]
    if len(names) != classes:
        raise UsageError(
            f"`names` must hold one name for every class of {model.name}",
            expected=f"{classes} names",
            received=len(names),
        )
    if isinstance(model.layers[-1], ClassProbabilities):
        model.layers[-1].class_names = tuple(names)

"""Names and numbers of the classes of a network.

A network with one output, by a sigmoid or as a logit, has two classes, as Keras's binary labels
number them: the output is the probability of class 1 (yes), and 1 minus it that of class 0 (no).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from cnnkit._network_names import find_class
from cnnkit.errors import UsageError
from cnnkit.layers import ClassBoxes, ClassProbabilities
from cnnkit.models.graph import input_output_tensors
from cnnkit.models.logits import output_activation, output_layer


def class_names(model: keras.Model) -> tuple[str, ...] | None:
    """Return the names of a model's outputs that are saved with it, or None.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models import class_names
        >>> class_names(alexnet(classes=2, input_shape=(64, 64, 3))) is None
        True
    """
    last = output_layer(model)
    return last.class_names if isinstance(last, ClassProbabilities | ClassBoxes) else None


def class_count(model: keras.Model) -> int:
    """Return the number of classes of a classifier, 2 for a sigmoid or a logit alone.

    Raises:
        UsageError: If the model has several outputs.

    Example:
        >>> import keras
        >>> from cnnkit.models.class_names import class_count
        >>> class_count(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")]))
        2
    """
    _, outputs = input_output_tensors(model)
    if len(outputs) != 1:
        raise UsageError(
            f"Model {model.name!r} must have one output",
            expected="one output (n, classes)",
            received=", ".join(str(tuple(one.shape)) for one in outputs),
            hint="Choose one: keras.Model(model.inputs[0], model.outputs[0])",
        )
    last = output_layer(model)
    if isinstance(last, ClassBoxes):
        return len(last.class_names)
    return 2 if _is_binary(model) else outputs[0].shape[-1]


def is_localizer(model: keras.Model) -> bool:
    """Return whether a model ends in classes and boxes, as `cnnkit.models.localizer` builds it."""
    return isinstance(output_layer(model), ClassBoxes)


def _is_binary(model: keras.Model) -> bool:
    return model.outputs[0].shape[-1] == 1 and output_activation(model) != "softmax"


def class_captions(model: keras.Model) -> tuple[str, ...] | None:
    """Return the names of a classifier's classes for captions, or None if they have numbers only.

    The two classes of a network with one output always have a name.

    Example:
        >>> import keras
        >>> from cnnkit.models.class_names import class_captions
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
        >>> class_captions(model)
        ('class 0 (no)', 'class 1 (yes)')
    """
    names = class_names(model)
    if not _is_binary(model):
        return names
    return (f"not {names[0]}", names[0]) if names else ("class 0 (no)", "class 1 (yes)")


def class_index(model: keras.Model, label: int | str) -> int:
    """Return the index of a class given by name or number.

    Args:
        model: A classifier. With one output, by a sigmoid or as a logit, it has the classes
            0 (no) and 1 (yes).
        label: A class name, or an index as a number or in digits. A name comes first.

    Raises:
        UsageError: If there is no such class (the error offers the nearest names), or the model
            has several outputs.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models import class_index
        >>> class_index(alexnet(classes=2, input_shape=(64, 64, 3)), "1")
        1
    """
    classes = class_count(model)
    names = (class_captions(model) or ()) if class_names(model) else ()
    return find_class(label, names, classes, model.name)


def set_class_names(model: keras.Model, names: Sequence[str]) -> None:
    """Set the class names of a model, which are saved with it.

    A model that ends in its logits has no layer to hold them and is left unchanged.

    Raises:
        UsageError: If the number of names is not the number of classes.
    """
    classes = class_count(model) if is_localizer(model) else model.output_shape[-1]
    if len(names) != classes:
        raise UsageError(
            f"`names` must hold one name for every class of {model.name}",
            expected=f"{classes} names",
            received=len(names),
        )
    last = output_layer(model)
    if isinstance(last, ClassProbabilities | ClassBoxes):
        last.class_names = tuple(names)

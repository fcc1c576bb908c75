"""Draw the training and the test images of every class, as the protocol of Caltech-101 does."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cnnkit.errors import DataError, UsageError
from cnnkit.transfer.linear_classifier import check_labels

# Classes or labels that an error lists at most.
LISTED_CLASSES = 5


def random_split(
    labels: ArrayLike,
    classes: Sequence[str],
    per_class: int,
    test_per_class: int | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the training and the test images of every class.

    The images of a class are permuted in an order that depends on the seed and the class alone,
    and the first ones become training images. So a larger training set contains the smaller ones.

    Args:
        labels: (n,) indices into `classes`, or names of them.
        classes: Names of the classes.
        per_class: Number of training images of each class.
        test_per_class: Largest number of test images of each class; None takes all the others.
        seed: Seed of this split.

    Returns:
        The indices of the training images and of the test images.

    Raises:
        UsageError: If `per_class` or `test_per_class` is below 1.
        DataError: If a label does not fit the classes, or a class has too few images.

    Example:
        >>> import numpy as np
        >>> train, test = random_split(np.repeat([0, 1], 10), ["cat", "dog"], 3, 5, seed=0)
        >>> len(train), len(test)
        (6, 10)
    """
    for name, value in (("per_class", per_class), ("test_per_class", test_per_class)):
        if value is not None or name == "per_class":
            check_number(name, value)
    labels = label_indices(labels, classes)
    train, test = [], []
    for label, name in enumerate(classes):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) <= per_class:
            raise DataError(
                f"The class {name} has too few images",
                expected=f"{per_class} training images and at least one test image",
                received=len(of_class),
                hint="Use fewer images per class, or remove the class",
            )
        order = of_class[np.random.default_rng((seed, label)).permutation(len(of_class))]
        train.append(order[:per_class])
        test.append(order[per_class:][:test_per_class])
    return np.concatenate(train), np.concatenate(test)


def label_indices(labels: ArrayLike, classes: Sequence[str]) -> np.ndarray:
    """Return labels as indices into `classes`, (n,) int, in the order of `classes`.

    Args:
        labels: (n,) indices into `classes`, or names of them.
        classes: Names of the classes.

    Raises:
        UsageError: If there is not one label for each image, or they are of another kind.
        DataError: If one is not an index or a name of the classes.

    Example:
        >>> label_indices(["eel", "cat"], ["cat", "eel"]).tolist()
        [1, 0]
    """
    labels = check_labels(labels)
    if labels.dtype.kind in "US":
        index = {name: number for number, name in enumerate(classes)}
        unknown = sorted(set(labels.astype(str)) - set(index))
        if unknown:
            raise DataError(
                "`labels` must be names of `classes`",
                expected=", ".join(classes[:LISTED_CLASSES]),
                received=", ".join(unknown[:LISTED_CLASSES]),
            )
        return np.array([index[name] for name in labels.astype(str)], np.int64)
    labels = labels if labels.dtype.kind in "iu" else labels.astype(np.int64)
    outside = labels[(labels < 0) | (labels >= len(classes))]
    if len(outside):
        raise DataError(
            "`labels` must be indices into `classes`: labels do not fit the classes",
            expected=f"0 to {len(classes) - 1}",
            received=", ".join(map(str, np.unique(outside)[:LISTED_CLASSES])),
        )
    return labels


def check_number(name: str, value: object) -> None:
    """Check a number of images or splits.

    Args:
        name: Name of the argument.
        value: Its value.

    Raises:
        UsageError: If it is not an integer of at least 1.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise UsageError(f"`{name}` must be an integer of at least 1", received=repr(value))
    if int(value) < 1:
        raise UsageError(f"`{name}` must be at least 1", received=value)

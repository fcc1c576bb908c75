"""Random training and test images by the protocol of Caltech-101 and Caltech-256."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnkit.errors import DataError, UsageError

# Fei-Fei et al. 2004, as Zeiler & Fergus 2013, section 4.3: 15 or 30 images a class to train on,
# at most 50 a class to test on.
PER_CLASS = 30
TEST_PER_CLASS = 50


def random_split(
    labels: np.ndarray,
    classes: Sequence[str],
    per_class: int,
    test_per_class: int | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the training and the test images of every class.

    The images of a class come in an order that depends on the seed and the class alone: its first
    ones are trained on, so that more training images contain the fewer.

    Args:
        labels: (n,) int, indices into `classes`.
        classes: Names of the classes.
        per_class: Training images of each class.
        test_per_class: At most so many of the others are tested; None tests all.
        seed: Of this split.

    Returns:
        The indices of the training and of the test images.

    Raises:
        UsageError: If a number is below one.
        DataError: If a label does not fit the classes, or a class has too few images.

    Example:
        >>> import numpy as np
        >>> train, test = random_split(np.repeat([0, 1], 10), ["cat", "dog"], 3, 5, seed=0)
        >>> len(train), len(test)
        (6, 10)
    """
    for name, value in (("training", per_class), ("test", test_per_class)):
        if value is not None and value < 1:
            raise UsageError(f"Every class has {name} images", expected="1 or more", received=value)
    check_labels(labels, classes)
    train, test = [], []
    for label, name in enumerate(classes):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) <= per_class:
            raise DataError(
                f"The class {name} has too few images",
                expected=f"{per_class} to train on and at least one to test on",
                received=len(of_class),
                hint="Ask for fewer images per class, or leave the class out",
            )
        order = of_class[np.random.default_rng((seed, label)).permutation(len(of_class))]
        train.append(order[:per_class])
        test.append(order[per_class:][:test_per_class])
    return np.concatenate(train), np.concatenate(test)


def check_labels(labels: np.ndarray, classes: Sequence[str]) -> None:
    """Makes sure that every label names a class.

    Raises:
        DataError: If one does not.
    """
    outside = labels[(labels < 0) | (labels >= len(classes))]
    if len(outside):
        raise DataError(
            "Labels do not fit the classes",
            expected=f"0 to {len(classes) - 1}",
            received=", ".join(map(str, np.unique(outside)[:5])),
        )

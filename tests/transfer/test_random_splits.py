"""Random splits: drawn by class and seed, and what cannot be drawn."""

import numpy as np
import pytest

from cnnkit.errors import DataError, UsageError
from cnnkit.transfer.random_splits import check_number, label_indices, random_split

CLASSES = ("zebra", "ant", "mule")


@pytest.fixture
def labels():
    return np.repeat([0, 1, 2], 20)


def test_splits_are_drawn_by_class_and_seed(labels):
    train, test = random_split(labels, CLASSES, 5, 8, seed=3)
    assert np.bincount(labels[train]).tolist() == [5, 5, 5]
    assert np.bincount(labels[test]).tolist() == [8, 8, 8]
    assert not set(train) & set(test)
    more, rest = random_split(labels, CLASSES, 12, None, seed=3)
    assert set(train) < set(more)
    assert len(rest) == 3 * 8
    assert sorted(random_split(labels, CLASSES, 5, 8, seed=4)[0]) != sorted(train)


def test_names_of_classes_are_labels_in_the_order_of_the_classes(labels):
    names = np.array(CLASSES)[labels]
    np.testing.assert_array_equal(label_indices(names, CLASSES), labels)
    for one, other in zip(
        random_split(labels, CLASSES, 5, 8, seed=3),
        random_split(names.tolist(), CLASSES, 5, 8, seed=3),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_labels_of_other_classes(labels):
    with pytest.raises(DataError, match="`labels` must be names of `classes`.*Received: horse"):
        random_split(["horse", "ant"] * 30, CLASSES, 5, 8, seed=3)
    with pytest.raises(DataError, match="Expected: 0 to 1. Received: 2"):
        random_split(labels, CLASSES[:2], 5, 5, 0)
    with pytest.raises(DataError, match="Expected: 0 to 2. Received: -1"):
        label_indices([0, -1], CLASSES)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "`n` must be at least 1. Received: 0"),
        (1.0, "`n` must be an integer of at least 1. Received: 1.0"),
        (True, "`n` must be an integer of at least 1. Received: True"),
    ],
)
def test_counts(value, text):
    check_number("n", np.int64(1))
    with pytest.raises(UsageError, match=text):
        check_number("n", value)

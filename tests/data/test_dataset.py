"""Splits of a dataset."""

import numpy as np
import pytest

from cnnkit.data import Split
from cnnkit.data.dataset import stratified_holdout
from cnnkit.errors import UsageError


def test_holdout_leaves_images_to_train_on():
    labels = np.array([0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    test = stratified_holdout(labels, seed=0)
    assert [int(test[labels == i].sum()) for i in range(3)] == [1, 0, 2]


@pytest.mark.parametrize(
    "labels", [np.array(["cat", "dog"]), np.array([0.0, 1.0]), np.eye(2, dtype=int)]
)
def test_labels_are_indices_into_the_class_names(labels):
    """Names of classes ended in a raw error of TensorFlow, far from here."""
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="`labels` must be an integer for each image"):
        Split.from_pixels(labels, ("a", "b"), pixels)
    assert len(Split.from_pixels(np.array([0, 1]), ("a", "b"), pixels)) == 2

"""Splits of a dataset."""

import numpy as np
import pytest

from cnnkit.data import Dataset, Split
from cnnkit.data.dataset import UNUSED_SPLIT, stratified_holdout
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


def test_a_dataset_prints_as_a_readable_block():
    """It printed the name of every image."""
    labels = np.array([0, 0, 1], np.int32)
    splits = {
        "train": Split.from_files(labels, ("a/1", "a/2", "b/1"), lambda index: index),
        "test": Split(np.zeros(0, np.int32), (), lambda index: index),
    }
    left_out = {"unreadable": ("a/3.png",)}
    dataset = Dataset("folder:x", ("a", "b\x1b[2J"), splits, "", left_out)
    assert repr(dataset) == (
        "<Dataset folder:x: 2 classes (a, b\\x1b[2J)\n"
        "  train: 3 images in files; 1 to 2 of a class\n"
        "  test: 0 images computed by a function\n"
        "  1 file left out: 1 unreadable>"
    )
    pixels = np.zeros((2, 4, 6, 3), np.uint8)
    for spec in ("folder:x", "folder:x#val"):
        other = Dataset(spec, ("a",), {}, "", {f"{UNUSED_SPLIT} test": ("t/1.png",)})
        assert other.describe_left_out().endswith("; folder:x#test holds that split out")
    split = Split.from_pixels(np.zeros(2, np.int32), ("1", "2"), pixels)
    assert repr(split) == "<Split: 2 images in memory, 4 x 6 pixels>"

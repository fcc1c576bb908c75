"""Splits of a dataset."""

from dataclasses import replace

import numpy as np
import pytest

from cnnkit.data import Dataset, Decoding, Split
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


def test_boxes_are_four_numbers_and_follow_their_images():
    pixels = np.zeros((3, 4, 4, 3), np.uint8)
    split = Split.from_pixels(np.array([0, 1, 1]), ("a", "b", "c"), pixels)
    boxes = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    assert replace(split, boxes=boxes).boxes is boxes
    for wrong in (boxes[:2], boxes[..., :3], boxes[0]):
        with pytest.raises(UsageError, match=r"`boxes` must hold the boxes .*shape \(3, m, 4\)"):
            replace(split, boxes=wrong)
    part = replace(split, boxes=boxes).subset(np.array([2, 0]))
    np.testing.assert_array_equal(part.boxes, boxes[[2, 0]])
    of_files = Split.from_files(split.labels, split.names, lambda index: index)
    decoded = replace(of_files, boxes=boxes).decoded(Decoding(background=None))
    assert decoded.boxes is boxes and decoded.decoding.background is None


def test_only_some_empty_folders_are_named():
    def described(count):
        names = tuple(f"f{i}" for i in range(count))
        return Dataset("folder:x", ("a",), {}, "", empty_folders=names).describe_left_out()

    assert described(0) is None
    assert described(3) == "no images in f0, f1, f2"
    assert described(4) == "no images in f0, f1, f2 and 1 more"
    four, three = (Dataset("x", tuple("abcd"[:n]), {}, "") for n in (4, 3))
    assert repr(four) == "<Dataset x: 4 classes (a, b, c, ...)>"
    assert repr(three) == "<Dataset x: 3 classes (a, b, c)>"


def test_the_images_that_are_held_out_stay_the_same_ones():
    """A run that goes on with another version must not meet images that it was trained on."""
    labels = np.arange(20) % 2
    held_out = stratified_holdout(labels, seed=3)
    assert np.flatnonzero(held_out).tolist() == [3, 9, 12, 18]

"""Datasets in notebooks."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Dataset, Split, load_dataset
from tests._html.test_elements import read

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_what_is_left_out_is_told(digits):
    left_out = {"unreadable": ("a.png", "b.png")}
    found = read(dataclasses.replace(digits, left_out=left_out)._repr_html_())
    assert "2 files left out: 2 unreadable" in found.texts
    assert "0 classes; images: none" in Dataset("none", (), {}, "")._repr_html_()


def test_a_dataset_shows_classes_and_images(digits):
    names = ("<b>zero", *digits.class_names[1:])
    found = read(dataclasses.replace(digits, class_names=names)._repr_html_())
    assert found.tags.count("img") == 8
    text = "|".join(found.texts)
    assert "10 classes; images: 1,438 in train, 359 in test" in text
    assert "class|train|test|<b>zero|142|36|1|146|36" in text
    assert ("title", f"<b>zero: {digits.splits['train'].names[0]}") in found.attributes


def test_images_that_cannot_be_decoded_are_left_out():
    files = tf.constant([tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy(), b"no image"])
    split = Split.from_files(
        np.array([0, 0], np.int32), ("a", "b"), lambda index: tf.gather(files, index)
    )
    found = read(Dataset("two", ("only",), {"test": split}, "")._repr_html_())
    assert found.tags.count("img") == 1


def test_only_the_first_hundred_classes_are_listed():
    names = tuple(f"class{i}" for i in range(101))
    for count, title in ((100, "Images by class"), (101, "Images of the first 100 classes")):
        found = read(Dataset("many", names[:count], {}, "")._repr_html_())
        assert title in found.texts
        assert ("class99" in found.texts) and ("class100" not in found.texts)

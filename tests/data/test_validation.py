"""Validation of a dataset with planted defects."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Dataset, Split, check_dataset, load_dataset
from cnnkit.errors import DataError
from tests.helpers.image_formats import FORMATS

pytestmark = pytest.mark.usefixtures("unoptimized")


def test_check_finds_what_is_planted(flawed_folder):
    with pytest.raises(DataError, match="1 of 21 files .*`cnnkit data check` names them all"):
        load_dataset(f"folder:{flawed_folder}")
    report = check_dataset(load_dataset(f"folder:{flawed_folder}", max_unreadable=1.0))
    assert not report.passed
    assert report.left_out == {
        "of other types": ("train/dark/notes.txt",),
        "unreadable": ("train/dark/torn.jpg",),
    }
    assert report.files == sum(file.is_file() for file in flawed_folder.rglob("*")) == 22
    assert report.splits["train"].unreadable == ("train/dark/6.jpg",)
    assert report.splits["test"].unreadable == ()
    assert report.duplicates == (("train/light/4.jpg", "test/light/same.png"),)
    assert report.splits["train"].classes == {"dark": 6, "light": 6}
    assert report.splits["test"].images == 7
    assert (report.splits["train"].height.median, report.splits["train"].width.largest) == (12, 16)


def test_the_same_bytes_in_another_shape_are_no_duplicate():
    images = [np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)]
    splits = {
        part: Split(np.zeros(1, np.int32), (part,), lambda i, image=image: tf.constant(image))
        for part, image in zip(("train", "test"), images, strict=True)
    }
    assert check_dataset(Dataset("made up", ("one",), splits, "")).passed


def test_the_report_names_what_files_hold_besides_pixels():
    kinds = {
        "with EXIF orientation": ["PNG, orientation", "WebP, orientation"],
        "with transparency": ["PNG, opacity", "GIF, transparent", "WebP, opacity"],
        "of four colors (CMYK)": ["JPEG, lossy, CMYK"],
        "animated": ["WebP, animated", "GIF, animated", "PNG, animated"],
    }
    kinds["with EXIF orientation"] += [f"JPEG, lossy, orientation {i}" for i in range(2, 9)]
    plain = ["JPEG, lossy", "JPEG, lossy, orientation 1", "PNG", "BMP, palette", "GIF", "WebP"]
    names = [*plain, *(name for of_kind in kinds.values() for name in of_kind)]
    table = tf.constant([FORMATS[name] for name in names])
    split = Split.from_files(np.zeros(len(names), np.int32), names, lambda index: table[index])
    dataset = Dataset("made up", ("one",), {"train": split, "test": split}, "")
    found = check_dataset(dataset).splits["train"]
    assert found.images == len(names)
    assert {trait: sorted(of_kind) for trait, of_kind in found.traits.items()} == {
        trait: sorted(of_kind) for trait, of_kind in kinds.items()
    }

"""Validation of a dataset with planted defects."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Dataset, Split, check_dataset, load_dataset
from cnnkit.data.validation import DatasetReport, SideRange, SplitReport
from cnnkit.errors import DataError
from tests.helpers.image_formats import FORMATS

pytestmark = pytest.mark.usefixtures("unoptimized")


def test_check_finds_what_is_planted(flawed_folder):
    with pytest.raises(DataError, match="1 of 21 files .*`cnnkit data check` names them all"):
        load_dataset(f"folder:{flawed_folder}")
    looked_at = []
    dataset = load_dataset(f"folder:{flawed_folder}", max_unreadable=1.0)
    report = check_dataset(dataset, progress=looked_at.append)
    # All but the one that cannot be decoded.
    assert sum(looked_at) == sum(len(split) for split in dataset.splits.values()) - 1
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


GOOD = SplitReport(1, {"a": 1}, None, None, (), {})


@pytest.mark.parametrize(
    ("defect", "passed"),
    [
        ({}, True),
        ({"left_out": {"hidden": ()}}, True),
        ({"label_files": ("val.txt",)}, True),
        ({"left_out": {"hidden": ("a",)}}, False),
        ({"empty_folders": ("b",)}, False),
        ({"duplicates": (("a", "b"),)}, False),
        ({"splits": {"train": GOOD, "test": replace(GOOD, unreadable=("a",))}}, False),
    ],
)
def test_each_defect_alone_fails_the_check(defect, passed):
    whole = DatasetReport({"train": GOOD, "test": GOOD}, 2, {}, (), (), ())
    assert replace(whole, **defect).passed is passed


def test_sides_are_the_smallest_the_median_and_the_largest():
    shapes = [(4, 7), (6, 9), (9, 8)]
    table = tf.constant([tf.io.encode_png(np.zeros((*s, 3), np.uint8)).numpy() for s in shapes])
    split = Split.from_files(np.zeros(3, np.int32), "abc", lambda index: table[index])
    broken = Split.from_files(np.zeros(1, np.int32), "a", lambda index: tf.constant(b"no image"))
    dataset = Dataset("made up", ("one", "two"), {"train": split, "test": broken}, "")
    report = check_dataset(dataset)
    assert report.splits["train"].height == SideRange(4, 6, 9)
    assert report.splits["train"].width == SideRange(7, 8, 9)
    assert report.splits["test"] == SplitReport(0, {"one": 0, "two": 0}, None, None, ("a",), {})


def test_a_split_without_images_is_refused():
    empty = Split(np.zeros(0, np.int32), (), lambda index: index)
    with pytest.raises(DataError, match="The split train of made up is empty"):
        check_dataset(Dataset("made up", ("a",), {"train": empty}, ""))

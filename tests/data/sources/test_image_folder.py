"""Folders of images: which folders are splits and classes."""

import hashlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import load_dataset
from cnnkit.data.dataset import stratified_holdout
from cnnkit.data.sources.image_folder import split_role
from cnnkit.errors import DataError, UsageError
from tests.helpers.images import write_files

CLASSES = ("cat", "dog")


def split_names(*folders, images=2):
    """Returns names of images in the class folders of some folders."""
    return [f"{folder}/{c}/{i}.png" for folder in folders for c in CLASSES for i in range(images)]


def sizes(dataset):
    return {name: len(split) for name, split in dataset.splits.items()}


def test_folder_with_a_seeded_split(image_folder):
    source = load_dataset(f"folder:{image_folder}")
    assert source.class_names == ("above", "below")
    assert sizes(source) == {"train": 32, "test": 8}
    split = source.splits["train"]
    for i in (0, 20):
        image = split.load_image(tf.constant(i, tf.int64)).numpy()
        half = image[:30].mean() > image[40:].mean()
        assert half == (source.class_names[split.labels[i]] == "above")


def test_folder_with_its_own_splits(image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "train")
    shutil.copytree(image_folder / "below", tmp_path / "test" / "below")
    (tmp_path / "train" / "above" / ".hidden").write_text("left alone")
    source = load_dataset(f"folder:{tmp_path}")
    assert sizes(source) == {"train": 40, "test": 20}
    assert set(source.splits["test"].labels) == {1}
    assert source.left_out == {"hidden": ("train/above/.hidden",)}
    shutil.copytree(image_folder / "below", tmp_path / "test" / "beside")
    with pytest.raises(DataError, match="test has classes that .*train lacks. Received: beside"):
        load_dataset(f"folder:{tmp_path}")


def fingerprint_by_hand(rows):
    lines = (f"{split}\t{file}\t{label}\t{size}\n" for split, file, label, size in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_order_and_fingerprint_of_plain_folders_are_those_of_0_1_0(tmp_path):
    # In the order of the classes, although "a-b/" sorts before "a/" as text.
    names = [f"{c}/{i}.png" for c in ("a", "a-b", "b") for i in (0, 1, 10, 2)]
    write_files(tmp_path / "flat", names)
    source = load_dataset(f"folder:{tmp_path / 'flat'}", seed=3)
    labels = np.repeat([0, 1, 2], 4)
    held_out = stratified_holdout(labels, 3)
    rows = [
        ("test" if out else "train", name, label, (tmp_path / "flat" / name).stat().st_size)
        for name, label, out in zip(names, labels, held_out, strict=True)
    ]
    assert source.class_names == ("a", "a-b", "b")
    assert source.splits["train"].names == tuple(row[1] for row in rows if row[0] == "train")
    assert source.fingerprint == fingerprint_by_hand(sorted(rows, key=lambda row: row[0]))

    write_files(tmp_path / "split", [f"{s}/{name}" for s in ("train", "test") for name in names])
    source = load_dataset(f"folder:{tmp_path / 'split'}")
    rows = [
        (s, f"{s}/{name}", label, (tmp_path / "split" / s / name).stat().st_size)
        for s in ("test", "train")
        for name, label in zip(names, labels, strict=True)
    ]
    assert source.fingerprint == fingerprint_by_hand(rows)


def test_images_in_subfolders_of_a_class_belong_to_the_class(tmp_path):
    nested = [f"cat/{sub}/{i}.png" for sub in ("indoor", "outdoor/sun") for i in range(15)]
    write_files(tmp_path, [*nested, *split_names(".", images=10)])
    source = load_dataset(f"folder:{tmp_path}")
    assert source.class_names == CLASSES
    names = {name for split in source.splits.values() for name in split.names}
    assert names == {*nested, *(name.removeprefix("./") for name in split_names(".", images=10))}
    for split in source.splits.values():
        for name, label in zip(split.names, split.labels, strict=True):
            assert name.startswith(CLASSES[label])


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"), ("train", "val"), ("train", "valid"), ("train", "validation"),
        ("Train", "Test"), ("Train", "Val"), ("TRAIN", "VALID"), ("training", "testing"),
        ("training_set", "test_set"), ("train-images", "test-images"), ("trainset", "testset"),
        ("seg_train", "seg_test"), ("train2017", "val2017"), ("train", "cats_test"),
        ("train", "dev"), ("train", "eval"),
    ],
)  # fmt: skip
def test_usual_names_of_splits(tmp_path, train, test):
    write_files(tmp_path, [*split_names(train, images=3), *split_names(test, images=2)])
    # A stray picture must not turn the splits into classes.
    write_files(tmp_path, [f"{train}/stray.png", f"{test}/stray.png", "stray.png", "extra/1.png"])
    source = load_dataset(f"folder:{tmp_path}")
    assert source.class_names == CLASSES
    assert sizes(source) == {"train": 6, "test": 4}
    assert {name.partition("/")[0] for name in source.splits["test"].names} == {test}
    assert sorted(source.left_out["outside the class folders"]) == sorted(
        [f"{train}/stray.png", f"{test}/stray.png", "stray.png", "extra/1.png"]
    )


@pytest.mark.parametrize("test", ["test", "test1", "val"])
def test_splits_without_class_folders_are_no_classes(tmp_path, test):
    # As Kaggle's dogs-vs-cats: the classes are in the names of the files.
    write_files(tmp_path, ["train/cat.0.jpg", "train/dog.0.jpg", f"{test}/1.jpg", f"{test}/2.jpg"])
    with pytest.raises(DataError, match="no class folders to hold out.*a folder for each class"):
        load_dataset(f"folder:{tmp_path}")


def test_classes_that_are_named_like_splits_stay_classes(tmp_path):
    write_files(tmp_path / "vehicles", [f"{c}/{i}.png" for c in ("bus", "train") for i in range(5)])
    assert load_dataset(f"folder:{tmp_path / 'vehicles'}").class_names == ("bus", "train")
    classes = ("test_tube", "train_station")
    write_files(tmp_path / "things", [f"{c}/{i}.png" for c in classes for i in range(5)])
    assert load_dataset(f"folder:{tmp_path / 'things'}").class_names == classes
    assert [split_role(n) for n in ("trains", "tested", "value", "valley")] == [None] * 4


def test_a_third_split_is_said_and_can_be_held_out(tmp_path):
    names = split_names("train", images=4) + split_names("val", images=3) + split_names("test")
    write_files(tmp_path, names)
    source = load_dataset(f"folder:{tmp_path}")
    assert sizes(source) == {"train": 8, "test": 4}
    assert source.splits["test"].names[0] == "test/cat/0.png"
    assert source.left_out == {"in the unused split val": tuple(split_names("val", images=3))}
    assert source.describe_left_out() == (
        f"6 files left out: 6 in the unused split val; folder:{tmp_path}#val holds that split out"
    )
    other = load_dataset(f"folder:{tmp_path}#val")
    assert sizes(other) == {"train": 8, "test": 6}
    assert other.splits["test"].names == tuple(split_names("val", images=3))
    assert f"folder:{tmp_path}#test holds" in other.describe_left_out()
    with pytest.raises(UsageError, match="has no folder none to hold out.*test, train, val"):
        load_dataset(f"folder:{tmp_path}#none")
    shutil.rmtree(tmp_path / "test")
    shutil.rmtree(tmp_path / "val" / "dog")
    assert sizes(load_dataset(f"folder:{tmp_path}")) == {"train": 8, "test": 3}


def test_a_folder_with_the_mark_in_its_name_is_opened(tmp_path):
    write_files(tmp_path / "photos#2", split_names(".", images=5))
    assert load_dataset(f"folder:{tmp_path}/photos#2").class_names == CLASSES


def test_a_test_folder_without_labels_is_not_held_out(tmp_path):
    write_files(tmp_path, [*split_names("train", "val"), "test/1.png", "test/images/2.png"])
    source = load_dataset(f"folder:{tmp_path}")
    assert source.splits["test"].names == tuple(split_names("val"))
    assert source.left_out == {"in the unused split test": ("test/1.png", "test/images/2.png")}
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(
        DataError, match=r"no class folders to hold out.*folder:.*/train holds out a part"
    ):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("folders", "text"),
    [
        (
            ("train", "Train", "test"),
            "several folders of training images. .* Received: Train, train",
        ),
        (("train", "val", "valid"), "several folders to hold out. .*#NAME with one of val, valid"),
        (("train", "test", "Test"), "several folders to hold out. .*one of Test, test"),
    ],
)
def test_ambiguous_splits_are_asked_about(tmp_path, folders, text):
    write_files(tmp_path, split_names(*folders))
    with pytest.raises(DataError, match=text):
        load_dataset(f"folder:{tmp_path}")


def test_splits_inside_of_classes_are_not_mixed(tmp_path):
    names = [f"{c}/{s}/{i}.png" for c in CLASSES for s in ("train", "test") for i in range(3)]
    write_files(tmp_path, names)
    with pytest.raises(DataError, match="splits inside of a class folder.*Received: cat/train and"):
        load_dataset(f"folder:{tmp_path}")


def test_folders_of_nobody_are_no_classes(tmp_path):
    write_files(tmp_path, split_names(".", images=3))
    write_files(tmp_path, ["__MACOSX/cat/1.png", "@eaDir/1.png", ".cache/1.png", "README.md"])
    write_files(tmp_path, ["annotations/trimaps/1.png"])
    write_files(tmp_path, ["Annotations/1.xml", "docs/page.html"], b"no image")
    (tmp_path / "bird").mkdir()
    source = load_dataset(f"folder:{tmp_path}")
    assert source.class_names == CLASSES
    assert source.left_out == {
        "of the operating system": ("@eaDir/1.png", "__MACOSX/cat/1.png"),
        "hidden": (".cache/1.png",),
        "outside the class folders": ("README.md",),
        "of annotations": ("Annotations/1.xml", "annotations/trimaps/1.png"),
        "of other types": ("docs/page.html",),
    }
    assert source.empty_folders == ("bird", "docs")
    assert source.describe_left_out() == (
        "7 files left out: 2 of annotations, 2 of the operating system, 1 hidden, "
        "1 of other types, 1 outside the class folders; no images in bird, docs"
    )


def test_a_class_without_images_in_train_is_unknown(tmp_path):
    write_files(tmp_path, [*split_names("train", "test"), "test/bird/1.png"])
    (tmp_path / "train" / "bird").mkdir()
    with pytest.raises(DataError, match="test has classes that .*train lacks. Received: bird"):
        load_dataset(f"folder:{tmp_path}")


def test_folders_without_images(tmp_path):
    with pytest.raises(DataError, match="is not a dataset. Expected: a subfolder for each class"):
        load_dataset(f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="No images in"):
        load_dataset(f"folder:{tmp_path}")
    write_files(tmp_path, ["a/1.png"])
    with pytest.raises(DataError, match="Only one class folder .*has images. .*Received: a"):
        load_dataset(f"folder:{tmp_path}")


def test_the_folder_with_the_classes_is_pointed_to(tmp_path):
    write_files(tmp_path, [*split_names("archive/images"), "__MACOSX/1.png"])
    with pytest.raises(DataError, match="is not a dataset.*Received: archive. .*archive/images"):
        load_dataset(f"folder:{tmp_path}")
    with pytest.raises(UsageError, match="No folder .*If it was moved, give its new path"):
        load_dataset(f"folder:{tmp_path}/gone")


def test_class_names_are_those_of_the_folders(tmp_path):
    names = ["caf\u00e9", "two words", "\u732b"]
    write_files(tmp_path / "good", [f"{c}/{i}.png" for c in names for i in range(3)])
    assert load_dataset(f"folder:{tmp_path / 'good'}").class_names == tuple(names)
    write_files(tmp_path / "bad", [f"{c}/{i}.png" for c in ("a\nb", "c") for i in range(3)])
    with pytest.raises(DataError, match="must be UTF-8 without line breaks"):
        load_dataset(f"folder:{tmp_path / 'bad'}")

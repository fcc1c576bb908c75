"""Folders of images."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import load_dataset
from cnnkit.data.sources.image_folder import find_readable
from cnnkit.errors import DataError
from tests.helpers.images import encoded, noise_jpeg


def test_folder_with_a_seeded_split(image_folder):
    source = load_dataset(f"folder:{image_folder}")
    assert source.class_names == ("above", "below")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 32, "test": 8}
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
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 40, "test": 20}
    assert set(source.splits["test"].labels) == {1}
    (tmp_path / "test" / "beside").mkdir()
    with pytest.raises(DataError, match="test has classes that .*train lacks. Received: beside"):
        load_dataset(f"folder:{tmp_path}")


def test_a_few_files_that_are_no_images_are_left_out(tmp_path):
    png = encoded(np.zeros((4, 4, 3), np.uint8), "PNG")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(100):
            (tmp_path / name / f"{i}.png").write_bytes(png)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    truncated = encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "PNG")
    (tmp_path / "b" / "torn.png").write_bytes(truncated[: len(truncated) // 2])
    source = load_dataset(f"folder:{tmp_path}")
    assert source.unreadable == (str(tmp_path / "a/notes.txt"), str(tmp_path / "b/torn.png"))
    assert sum(len(split) for split in source.splits.values()) == 200

    (tmp_path / "b" / "more.txt").write_text("one too many")
    with pytest.raises(DataError, match="3 of 203 files .* are not images.* at most 1%.*notes.txt"):
        load_dataset(f"folder:{tmp_path}")


def test_folders_without_images(tmp_path):
    with pytest.raises(DataError, match="is not a dataset. Expected: a subfolder for each class"):
        load_dataset(f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="No images in"):
        load_dataset(f"folder:{tmp_path}")


def test_only_files_that_are_not_whole_jpegs_are_decoded(tmp_path):
    whole = noise_jpeg(100)
    contents = {
        "whole": whole,
        "torn": whole[: len(whole) // 2],
        "padded": whole + b"\0\0\0",
        "text": b"no image",
        "empty": b"",
        "png": tf.io.encode_png(np.zeros((3, 3, 3), np.uint8)).numpy(),
        # Not noticed here, but by `check`.
        "ends": whole[:20] + b"\xff\xd9",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    good = find_readable([str(tmp_path / name) for name in contents])
    assert dict(zip(contents, good.tolist(), strict=True)) == {
        "whole": True, "torn": False, "padded": True, "text": False, "empty": False, "png": True,
        "ends": True,
    }  # fmt: skip

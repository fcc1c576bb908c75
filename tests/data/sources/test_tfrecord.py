"""Shards: their bytes, their fingerprint, and damaged ones."""

import gc
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from cnnkit._dataset_spec import SHARD_INDEX
from cnnkit.data import Augmentation, batches, load_dataset, write_shards
from cnnkit.data.sources.tfrecord import RecordOffsets, fits_in_memory, record_reader
from cnnkit.errors import DataError, RunError, UsageError
from tests.helpers.images import load_file, write_files

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture
def shards(image_folder, tmp_path):
    write_shards(load_dataset(f"folder:{image_folder}"), tmp_path / "s", shard_bytes=60_000)
    return tmp_path / "s"


@pytest.mark.parametrize("in_memory", [0, 1 << 30])
def test_shards_hold_the_files_as_they_are(image_folder, shards, monkeypatch, in_memory):
    monkeypatch.setattr("cnnkit.data.sources.tfrecord.IN_MEMORY", in_memory)
    before = load_dataset(f"folder:{image_folder}")
    after = load_dataset(f"shards:{shards}")
    assert after.class_names == before.class_names
    assert len(list(shards.glob("train-*.tfrecord"))) > 3
    for part, split in after.splits.items():
        np.testing.assert_array_equal(split.labels, before.splits[part].labels)
        assert split.names == before.splits[part].names
        for i in np.random.default_rng(0).permutation(len(split)):
            assert load_file(split, i) == (image_folder / split.names[i]).read_bytes()


def test_shards_are_ordinary_tfrecords(shards):
    split = load_dataset(f"shards:{shards}").splits["train"]
    files = sorted(map(str, shards.glob("train-*.tfrecord")))
    features = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string),
        "image/class/label": tf.io.FixedLenFeature((), tf.int64),
        "image/class/text": tf.io.FixedLenFeature((), tf.string),
        "image/filename": tf.io.FixedLenFeature((), tf.string),
    }
    rows = [tf.io.parse_single_example(row, features) for row in tf.data.TFRecordDataset(files)]
    assert [int(row["image/class/label"]) for row in rows] == split.labels.tolist()
    assert rows[-1]["image/encoded"].numpy() == load_file(split, len(split) - 1)
    assert rows[0]["image/filename"].numpy().decode() == split.names[0]
    assert rows[0]["image/class/text"].numpy() == b"above"


def test_shards_train_like_the_folder(image_folder, shards):
    options = {
        "augmentation": Augmentation(32, scale=(40, 60), crop="random", flip=True),
        "batch_size": 16,
        "seed": 1,
    }
    sources = (load_dataset(f"folder:{image_folder}"), load_dataset(f"shards:{shards}"))
    both = [list(batches(source.splits["train"], **options)) for source in sources]
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one["images"], other["images"])


def test_fingerprint_of_shards_is_that_of_their_images(image_folder, shards, tmp_path):
    source = load_dataset(f"folder:{image_folder}")
    done = []
    write_shards(source, tmp_path / "one", shard_bytes=1 << 30, progress=done.append)
    assert done == [1] * 40
    first = load_dataset(f"shards:{shards}").fingerprint
    assert load_dataset(f"shards:{tmp_path / 'one'}").fingerprint == first
    copy = tmp_path / "copy"
    shutil.copytree(image_folder, copy)
    file = copy / "above" / "01.png"
    file.write_bytes(file.read_bytes() + b"\0")
    write_shards(load_dataset(f"folder:{copy}"), tmp_path / "other")
    other = load_dataset(f"shards:{tmp_path / 'other'}")
    assert other.fingerprint != first
    [(split, index)] = [
        (split, split.names.index("above/01.png"))
        for split in other.splits.values()
        if "above/01.png" in split.names
    ]
    assert load_file(split, index).endswith(b"\0")


def test_shards_tell_what_was_left_out(tmp_path):
    write_files(tmp_path / "set", [f"{c}/{i}.png" for c in "ab" for i in range(3)])
    write_files(tmp_path / "set", ["a/.DS_Store", "readme.txt"], b"no image")
    (tmp_path / "set" / "empty").mkdir()
    before = load_dataset(f"folder:{tmp_path / 'set'}")
    write_shards(before, tmp_path / "s")
    after = load_dataset(f"shards:{tmp_path / 's'}")
    assert after.left_out == before.left_out
    assert after.empty_folders == ("empty",)
    # Version 0.1.0 stored the unreadable files only.
    with np.load(tmp_path / "s" / SHARD_INDEX) as stored:
        arrays = dict(stored)
    about = json.loads(arrays["about"].tobytes())
    about = {key: about[key] for key in about if key not in ("left_out", "empty_folders")}
    about = {**about, "unreadable": ["a/torn.png"]}
    del about["label_files"]
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(tmp_path / "s" / SHARD_INDEX, **arrays)
    assert load_dataset(f"shards:{tmp_path / 's'}").left_out == {"unreadable": ("a/torn.png",)}


def test_a_split_without_images_is_written_and_read(tmp_path):
    # One image for each class, so that none is left for the test split.
    write_files(tmp_path / "set", ["a/0.png", "b/0.png"])
    before = load_dataset(f"folder:{tmp_path / 'set'}")
    assert len(before.splits["test"]) == 0
    write_shards(before, tmp_path / "s")
    after = load_dataset(f"shards:{tmp_path / 's'}")
    assert {name: len(split) for name, split in after.splits.items()} == {"train": 2, "test": 0}
    assert after.splits["test"].names == ()


def test_a_full_disk_is_one_clear_line(image_folder, tmp_path, monkeypatch):
    class FullDisk(tf.io.TFRecordWriter):
        def __init__(self, path):
            super().__init__(path)
            self.path = path

        def write(self, record):
            what = self.path if is_of_shard else "an image"
            raise tf.errors.ResourceExhaustedError(None, None, f"{what}; No space left on device")

    monkeypatch.setattr(tf.io, "TFRecordWriter", FullDisk)
    source = load_dataset(f"folder:{image_folder}")
    message = "test-00000.tfrecord could not be written. Received: No space left on device. Make"
    for is_of_shard, kind in ((True, RunError), (False, tf.errors.ResourceExhaustedError)):
        with pytest.raises(kind, match=message if is_of_shard else "an image"):
            write_shards(source, tmp_path / "s")


def test_the_splits_of_a_dataset_share_the_memory(tmp_path, monkeypatch):
    """Any number of splits may be of the same images: reading all of them filled the memory."""
    write_files(tmp_path / "set", [f"{c}/{i}.png" for c in "ab" for i in range(4)])
    write_shards(load_dataset(f"folder:{tmp_path / 'set'}"), tmp_path / "s")
    with np.load(tmp_path / "s" / SHARD_INDEX) as stored:
        arrays = dict(stored)
    size = int(arrays["train/places"][:, 2].sum())
    about = json.loads(arrays["about"].tobytes())
    for number in range(9):
        about["parts"].append(f"more{number}")
        more = {
            f"more{number}/{key}": arrays[f"train/{key}"] for key in ("labels", "names", "places")
        }
        arrays |= more
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(tmp_path / "s" / SHARD_INDEX, **arrays)
    read = []
    monkeypatch.setattr(
        "cnnkit.data.sources.tfrecord._read_image", lambda *of: read.append(of) or b""
    )
    monkeypatch.setattr("cnnkit.data.sources.tfrecord.IN_MEMORY", 9 * size)
    load_dataset(f"shards:{tmp_path / 's'}")
    assert not read
    monkeypatch.setattr("cnnkit.data.sources.tfrecord.IN_MEMORY", 11 * size)
    load_dataset(f"shards:{tmp_path / 's'}")
    assert len(read) == 10 * len(arrays["train/labels"]) + len(arrays["test/labels"])


def test_pixels_without_files_become_png_files(tmp_path):
    digits = load_dataset("digits")
    write_shards(digits, tmp_path / "s")
    split = load_dataset(f"shards:{tmp_path / 's'}").splits["test"]
    for i in (0, 358):
        index = tf.constant(i, tf.int64)
        np.testing.assert_array_equal(
            split.load_image(index), digits.splits["test"].load_image(index)
        )


def test_damaged_shards(shards):
    [first, second, *_] = sorted(shards.glob("train-*.tfrecord"))
    whole = first.read_bytes()
    first.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=f"{first.name} is damaged. Expected: {len(whole)} bytes"):
        load_dataset(f"shards:{shards}")
    first.write_bytes(whole)
    second.unlink()
    with pytest.raises(DataError, match=f"{second.name} is missing"):
        load_dataset(f"shards:{shards}")


def test_damaged_index(shards):
    index = shards / SHARD_INDEX
    index.write_bytes(index.read_bytes()[:-200])
    with pytest.raises(DataError, match="index.npz is damaged"):
        load_dataset(f"shards:{shards}")
    index.unlink()
    with pytest.raises(UsageError, match="No index of shards in .*writing was not finished"):
        load_dataset(f"shards:{shards}")


def test_interrupted_sharding_leaves_no_dataset_and_is_begun_again(image_folder, tmp_path):
    source = load_dataset(f"folder:{image_folder}")
    calls = iter(range(20))
    with pytest.raises(StopIteration):
        write_shards(
            source, tmp_path / "s", shard_bytes=60_000, progress=lambda images: next(calls)
        )
    left = list((tmp_path / "s").iterdir())
    assert left and all(file.suffix == ".tfrecord" for file in left)
    with pytest.raises(UsageError, match="No index"):
        load_dataset(f"shards:{tmp_path / 's'}")
    write_shards(source, tmp_path / "s")
    assert len(list((tmp_path / "s").iterdir())) == 3
    with pytest.raises(UsageError, match="is not empty"):
        write_shards(source, tmp_path / "s")


@pytest.mark.parametrize("in_memory", [False, True])
def test_images_are_read_from_files_or_memory(tmp_path, in_memory):
    file = tmp_path / "bytes"
    file.write_bytes(b"abcdef\0")
    places = RecordOffsets([str(file)], np.array([0, 0]), np.array([4, 0]), np.array([3, 2]))
    read = record_reader(places, in_memory)
    assert read(tf.constant(0)).numpy() == b"ef\0"
    assert record_reader(places.take(np.array([1])), in_memory)(tf.constant(0)).numpy() == b"ab"
    os.truncate(file, 5)
    if in_memory:
        assert read(tf.constant(0)).numpy() == b"ef\0"
        with pytest.raises(DataError, match="has become shorter"):
            record_reader(places, in_memory)
    else:
        with pytest.raises(tf.errors.OpError, match="has become shorter"):
            tf.function(read)(tf.constant(0))


def test_images_up_to_a_limit_are_held_in_memory(monkeypatch):
    monkeypatch.setattr("cnnkit.data.sources.tfrecord.IN_MEMORY", 10)
    splits = [RecordOffsets([], np.zeros(2), np.zeros(2), np.array([2, 3])) for _ in range(2)]
    assert fits_in_memory(splits)
    monkeypatch.setattr("cnnkit.data.sources.tfrecord.IN_MEMORY", 9)
    assert not fits_in_memory(splits)


def test_files_are_closed_with_the_reader(tmp_path):
    (tmp_path / "bytes").write_bytes(b"abcdef")
    before = len(list(Path("/proc/self/fd").iterdir()))
    places = RecordOffsets(
        [str(tmp_path / "bytes")], np.zeros(1, int), np.array([1]), np.array([2])
    )
    read = record_reader(places, in_memory=True)
    assert read(tf.constant(0)).numpy() == b"bc"
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before

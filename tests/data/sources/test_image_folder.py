"""Shards, ImageNet's own layout, and reading a dataset once to check it."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.cli.main import main
from cnnkit.data import (
    Augmentation,
    Split,
    batches,
    check_dataset,
    load_dataset,
    mean_image,
    report_undecodable,
    write_shards,
)
from cnnkit.data.dataset import Dataset
from cnnkit.data.sources.image_folder import find_readable
from cnnkit.data.sources.tfrecord import INDEX, RecordOffsets, record_reader
from cnnkit.errors import DataError, UsageError


def jpeg(value, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 30, (12, 16, 3), np.uint8) + np.uint8(value)
    return tf.io.encode_jpeg(pixels, quality=95).numpy()


def file_of(split, index):
    return split.load_bytes(tf.constant(index, tf.int64)).numpy()


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
            assert file_of(split, i) == (image_folder / split.names[i]).read_bytes()


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
    assert rows[-1]["image/encoded"].numpy() == file_of(split, len(split) - 1)
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
    write_shards(source, tmp_path / "one", shard_bytes=1 << 30)
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
    assert file_of(split, index).endswith(b"\0")


def test_pixels_without_files_become_png_files(tmp_path):
    digits = load_dataset("digits")
    write_shards(digits, tmp_path / "s")
    split = load_dataset(f"shards:{tmp_path / 's'}").splits["test"]
    for i in (0, 358):
        index = tf.constant(i, tf.int64)
        np.testing.assert_array_equal(
            split.load_image(index), digits.splits["test"].load_image(index)
        )


def test_torn_shards(shards):
    [first, second, *_] = sorted(shards.glob("train-*.tfrecord"))
    whole = first.read_bytes()
    first.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=f"{first.name} is damaged. Expected: {len(whole)} bytes"):
        load_dataset(f"shards:{shards}")
    first.write_bytes(whole)
    second.unlink()
    with pytest.raises(DataError, match=f"{second.name} is missing"):
        load_dataset(f"shards:{shards}")


def test_torn_index(shards):
    index = shards / INDEX
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
        write_shards(source, tmp_path / "s", shard_bytes=60_000, progress=lambda: next(calls))
    left = list((tmp_path / "s").iterdir())
    assert left and all(file.suffix == ".tfrecord" for file in left)
    with pytest.raises(UsageError, match="No index"):
        load_dataset(f"shards:{tmp_path / 's'}")
    write_shards(source, tmp_path / "s")
    assert len(list((tmp_path / "s").iterdir())) == 3
    with pytest.raises(UsageError, match="is not empty"):
        write_shards(source, tmp_path / "s")


@pytest.mark.parametrize("in_memory", [0, 5])
def test_images_are_read_from_files_or_memory(tmp_path, monkeypatch, in_memory):
    file = tmp_path / "bytes"
    file.write_bytes(b"abcdef\0")
    places = RecordOffsets([str(file)], np.array([0, 0]), np.array([4, 0]), np.array([3, 2]))
    monkeypatch.setattr("cnnkit.data.sources.tfrecord.IN_MEMORY", in_memory)
    read = record_reader(places)
    assert read(tf.constant(0)).numpy() == b"ef\0"
    assert record_reader(places.take(np.array([1])))(tf.constant(0)).numpy() == b"ab"
    os.truncate(file, 5)
    if in_memory:
        assert read(tf.constant(0)).numpy() == b"ef\0"
        with pytest.raises(DataError, match="has become shorter"):
            record_reader(places)
    else:
        with pytest.raises(tf.errors.OpError, match="has become shorter"):
            tf.function(read)(tf.constant(0))


def test_only_files_that_are_no_whole_jpeg_are_decoded(tmp_path):
    whole = jpeg(100)
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


SYNSETS = ("n01440764", "n01443537", "n02084071")
# What the validation images show, in the order of their names.
SHOWN = (2, 0, 0, 1)


@pytest.fixture
def imagenet(tmp_path):
    for label, synset in enumerate(SYNSETS):
        folder = tmp_path / "train" / synset
        folder.mkdir(parents=True)
        for i in range(2 + label):
            (folder / f"{synset}_{i}.JPEG").write_bytes(jpeg(70 * label, seed=i))
    (tmp_path / "val").mkdir()
    for i, label in enumerate(SHOWN, start=1):
        name = f"ILSVRC2012_val_{i:08d}.JPEG"
        (tmp_path / "val" / name).write_bytes(jpeg(70 * label, seed=10 + i))
    return tmp_path


def names_of(folder):
    return sorted(file.name for file in (folder / "val").iterdir())


def check_imagenet(folder):
    source = load_dataset(f"imagenet:{folder}")
    assert source.class_names == SYNSETS
    assert source.splits["train"].labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    test = source.splits["test"]
    assert sorted(test.labels) == sorted(SHOWN)
    for i, label in enumerate(test.labels):
        assert test.load_image(tf.constant(i, tf.int64)).numpy().mean() // 70 == label
    return source


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("val.txt", lambda name, label: f"{name} {label}"),
        ("val_labels.txt", lambda name, label: f"val/{name} {SYNSETS[label]}"),
    ],
)
def test_imagenet_with_named_labels(imagenet, file, word, shuffled):
    lines = [word(*pair) for pair in zip(names_of(imagenet), SHOWN, strict=True)]
    (imagenet / file).write_text("\n".join(lines[::-1] if shuffled else lines) + "\n")
    check_imagenet(imagenet)


def test_imagenet_with_a_line_an_image(imagenet):
    lines = [SYNSETS[label] for label in SHOWN]
    (imagenet / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(lines))
    check_imagenet(imagenet)


def test_imagenet_with_the_development_kit(imagenet):
    from scipy.io import savemat

    kit = imagenet / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    numbers = {0: 3, 1: 1, 2: 2}
    truth = "\n".join(str(numbers[label]) for label in SHOWN)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    with pytest.raises(DataError, match="numbers of the development kit.*meta.mat"):
        load_dataset(f"imagenet:{imagenet}")
    # As in the kit, there are synsets above the leaves, which have no images.
    table = np.array(
        [(number, SYNSETS[label]) for label, number in numbers.items()] + [(4, "n00000001")],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object)],
    )
    savemat(kit / "meta.mat", {"synsets": table})
    check_imagenet(imagenet)


def test_imagenet_with_validation_folders(imagenet):
    for name, label in zip(names_of(imagenet), SHOWN, strict=True):
        folder = imagenet / "val" / SYNSETS[label]
        folder.mkdir(exist_ok=True)
        (imagenet / "val" / name).rename(folder / name)
    source = check_imagenet(imagenet)
    assert source.splits["test"].names[0].startswith("val/n01440764/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "are unknown. Expected: a folder for each synset, or one of val_labels.txt"),
        ("n01440764\n" * 3, "does not fit the images.*Expected: 4 lines.*Received: 3 lines"),
        ("n01440764\n" * 3 + "n09999999\n", "names a class that .*train lacks. Received: n0999"),
        ("x.JPEG 0\n" * 4, "lacks images of .*Received: ILSVRC2012_val_00000001.JPEG"),
    ],
)
def test_imagenet_with_wrong_labels(imagenet, text, message):
    if text:
        (imagenet / "val_labels.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(f"imagenet:{imagenet}")


def test_no_imagenet(tmp_path):
    with pytest.raises(UsageError, match="No folder"):
        load_dataset(f"imagenet:{tmp_path / 'none'}")
    with pytest.raises(
        DataError, match="does not have the layout of ImageNet. Expected: .*Received: no train"
    ):
        load_dataset(f"imagenet:{tmp_path}")


@pytest.fixture
def flawed(tmp_path):
    """A dataset with a file that is no image, one that cannot be decoded, and a test image that
    is a training image in another format."""
    for part, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.jpg").write_bytes(jpeg(100 * label, seed=i + 10 * count))
    (tmp_path / "train" / "dark" / "notes.txt").write_text("no image")
    broken = jpeg(0)
    (tmp_path / "train" / "dark" / "6.jpg").write_bytes(broken[:100] + b"\xff\xd9")
    pixels = tf.io.decode_jpeg((tmp_path / "train" / "light" / "4.jpg").read_bytes())
    same = tf.io.encode_png(pixels).numpy()
    (tmp_path / "test" / "light" / "same.png").write_bytes(same)
    return tmp_path


def test_check_finds_what_is_planted(flawed):
    with pytest.raises(DataError, match="1 of 21 files .*`cnnkit data check` names them all"):
        load_dataset(f"folder:{flawed}")
    report = check_dataset(load_dataset(f"folder:{flawed}", max_unreadable=1.0))
    assert not report.passed
    assert report.left_out == (str(flawed / "train/dark/notes.txt"),)
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


def test_check_on_the_command_line(flawed, capsys):
    words = ["data", "check", f"folder:{flawed}"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "2 unreadable" in text and "train/dark/6.jpg" in text and "notes.txt" in text
    assert "test/light/same.png is train/light/4.jpg" in text
    assert "train: height 12 to 12 pixels, median 12" in text
    assert main([*words, "--strict", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["sound"] is False
    assert document["splits"]["train"]["classes"] == {"dark": 6, "light": 6}
    assert main(["data", "check", "digits", "--strict"]) == 0
    assert "0 unreadable\n0 test images that are training images" in capsys.readouterr().out


def test_shard_on_the_command_line(image_folder, tmp_path, capsys):
    words = ["data", "shard", f"folder:{image_folder}", "--output", str(tmp_path / "s")]
    assert main(words) == 0
    expected = f"shards:{tmp_path / 's'}: 32 training and 8 test images\n"
    captured = capsys.readouterr()
    assert captured.out == expected
    assert captured.err == ""
    assert main(words) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "t"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == {"train": 32, "test": 8}


def test_an_image_that_breaks_the_work_is_named(flawed, tmp_path):
    (flawed / "train" / "dark" / "notes.txt").unlink()
    split = load_dataset(f"folder:{flawed}").splits["train"]
    with pytest.raises(DataError, match="1 of the images cannot.*Received: train/dark/6.jpg"):
        mean_image(split, 8)
    digits = load_dataset("digits").splits["test"]
    other = tf.errors.InvalidArgumentError(None, None, "of another kind")
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="of another kind"),
        report_undecodable(digits),
    ):
        raise other

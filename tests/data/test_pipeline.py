"""Batches: order, resuming, padding, images in memory, and errors that name an image."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cnnkit.data import (
    Augmentation,
    PCAColorNoise,
    Split,
    batches,
    cache_in_memory,
    decode,
    load_dataset,
    mean_image,
    report_undecodable,
    resize_shorter_side,
)
from cnnkit.data.pipeline import epoch_order, parallel_map
from cnnkit.errors import DataError, UsageError
from tests.helpers.images import USUAL, augmented, jpeg, smooth, split_of

EIGHT = Augmentation(8)


def test_batches_show_every_image_once():
    split = load_dataset("digits").splits["test"]
    order = epoch_order(len(split), seed=4, epoch=2)
    assert sorted(order) == list(range(len(split)))
    read = tf.function(lambda i: resize_shorter_side(split.load_image(i), 8))
    images = [read(tf.constant(i)).numpy().tobytes() for i in order]
    for batch_size, replicas in ((64, 1), (50, 3), (len(split), 2), (1000, 1)):
        seen = []
        for batch in batches(
            split,
            augmentation=EIGHT,
            batch_size=batch_size,
            order=order,
            replicas=replicas,
        ):
            assert batch["images"].shape[0] % replicas == 0
            real = batch["weights"].numpy() == 1
            assert real.sum() <= batch_size
            seen += [image.tobytes() for image in batch["images"].numpy()[real]]
        assert seen == images


def test_a_resumed_epoch_begins_at_its_step():
    split = load_dataset("digits").splits["test"]
    options = {"augmentation": EIGHT, "batch_size": 32, "order": epoch_order(len(split), 0, 1)}
    whole = list(batches(split, **options).as_numpy_iterator())
    rest = list(batches(split, first_step=5, **options).as_numpy_iterator())
    assert len(rest) == len(whole) - 5
    for one, other in zip(whole[5:], rest, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_processes_share_every_batch():
    """Each one reads its own rows; the last batch is padded for both."""
    split = load_dataset("digits").splits["test"].subset(np.arange(22))
    options = {"augmentation": EIGHT, "batch_size": 8, "replicas": 2}
    whole = list(batches(split, **options).as_numpy_iterator())
    parts = [
        list(batches(split, shard=(process, 2), first_step=1, **options).as_numpy_iterator())
        for process in (0, 1)
    ]
    assert [len(part) for part in parts] == [2, 2]
    for expected, *found in zip(whole[1:], *parts, strict=True):
        for name, rows in expected.items():
            np.testing.assert_array_equal(np.concatenate([one[name] for one in found]), rows)
    assert parts[1][-1]["weights"].tolist() == [1, 1, 0, 0]


def test_a_batch_holds_an_image_at_least():
    split = load_dataset("digits").splits["test"].subset(np.arange(2))
    assert len(list(batches(split, augmentation=EIGHT, batch_size=1))) == 2
    with pytest.raises(UsageError, match="`batch_size` must be positive. Expected: at least 1"):
        batches(split, augmentation=EIGHT, batch_size=0)


def test_epochs_have_orders_of_their_own():
    orders = [tuple(epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in (1, 2)]
    assert len(set(orders)) == 4
    assert tuple(epoch_order(50, 0, 1)) == orders[0]


@pytest.mark.parametrize("encode", [None, jpeg], ids=["pixels", "jpeg"])
def test_an_image_is_augmented_the_same_in_any_batch(rng, encode):
    split = split_of([smooth(rng, 72 + 8 * i, 96) for i in range(12)], encode)
    options = Augmentation(32, scale=(36, 50), crop="random", flip=True, color=PCAColorNoise(USUAL))
    drawn = {"seed": 5, "epoch": 3}
    first = augmented(split, options, batch_size=12, **drawn)
    order = epoch_order(12, 1, 1)
    for again in (
        augmented(split, options, batch_size=5, replicas=2, order=order, **drawn),
        augmented(split, options, batch_size=1, order=order[::-1], **drawn),
        augmented(split, options, batch_size=4, first_step=2, **drawn),
    ):
        for i, image in again.items():
            np.testing.assert_array_equal(image, first[i])
    assert sorted(again) == [8, 9, 10, 11]
    for other in ({"seed": 6, "epoch": 3}, {"seed": 5, "epoch": 4}):
        changed = augmented(split, options, batch_size=12, **other)
        assert not any(np.array_equal(changed[i], first[i]) for i in first)


SIDE = 12


@pytest.fixture
def small_folder(tmp_path, rng):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.jpg", quality=95)
    return tmp_path


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(SIDE),
        Augmentation(SIDE, flip=True),
        Augmentation(8, scale=(SIDE, SIDE)),
        Augmentation(8, scale=(10, 16), crop="random", flip=True),
    ],
)
def test_cached_batches_equal_those_from_files(small_folder, augmentation):
    split = load_dataset(f"folder:{small_folder}").splits["train"]
    held = cache_in_memory(split)
    assert held.pixels.shape == (16, SIDE, SIDE, 3)
    order = np.array([3, 15, 0, 7, 7, 1, 2])
    options = {"augmentation": augmentation, "batch_size": 3, "order": order, "seed": 5, "epoch": 2}
    expected = list(batches(split, **options).as_numpy_iterator())
    shutil.rmtree(small_folder)  # nothing is read any more
    found = list(batches(held, **options).as_numpy_iterator())
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        for name in expected[0]:
            np.testing.assert_array_equal(one[name], other[name])


def test_splits_above_max_bytes_stay_in_their_files(small_folder):
    split = load_dataset(f"folder:{small_folder}").splits["train"]
    size = len(split) * SIDE * SIDE * 3
    assert cache_in_memory(split, max_bytes=size).pixels is not None
    assert cache_in_memory(split, max_bytes=size - 1) is split
    # Of photos with different sides, the first and the last one are read.
    read = []

    def load_image(index):
        read.append(index)
        return tf.zeros((4 + tf.cast(index, tf.int32), 4, 3), tf.uint8)

    photos = Split(np.zeros(3, np.int32), ("a", "b", "c"), load_image)
    assert cache_in_memory(photos) is photos
    assert [index.numpy() for index in read] == [0, 2]


def test_images_of_several_sizes_stay_in_their_files(small_folder):
    Image.new("RGB", (SIDE, SIDE + 1)).save(small_folder / "b" / "9.jpg")
    splits = load_dataset(f"folder:{small_folder}").splits
    with_it = [split for split in splits.values() if "b/9.jpg" in split.names]
    assert [cache_in_memory(split) is split for split in with_it] == [True]


def test_a_broken_image_is_named(small_folder):
    file = small_folder / "b" / "3.jpg"
    data = file.read_bytes()
    split = load_dataset(f"folder:{small_folder}", seed=1).splits["train"]
    assert "b/3.jpg" in split.names
    # Its two ends are whole, so that it was taken for an image.
    file.write_bytes(data[:20] + b"\x00" * (len(data) - 22) + data[-2:])
    with pytest.raises(DataError, match=r"cannot be decoded. Received: b/3.jpg"):
        cache_in_memory(split)
    for name in split.names:
        (small_folder / name).write_bytes(data[:20] + b"\x00" * 500 + data[-2:])
    first = ", ".join(split.names[:3])
    with pytest.raises(DataError, match=rf"16 of the images cannot .* Received: {first}\. Remove"):
        cache_in_memory(split)


def test_an_undecodable_image_is_named(flawed_folder, tmp_path, monkeypatch):
    (flawed_folder / "train" / "dark" / "torn.jpg").unlink()
    split = load_dataset(f"folder:{flawed_folder}").splits["train"]
    with pytest.raises(DataError, match="1 of the images cannot.*Received: train/dark/6.jpg"):
        mean_image(split, 8)
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "15")
    with pytest.raises(DataError, match="cannot be decoded: the image has .* and 15 in all"):
        mean_image(split, 8)
    digits = load_dataset("digits").splits["test"]
    other = tf.errors.InvalidArgumentError(None, None, "of another kind")
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="of another kind"),
        report_undecodable(digits),
    ):
        raise other


def test_undecodable_images_are_looked_for_during_a_limited_time(small_folder, monkeypatch):
    split = load_dataset(f"folder:{small_folder}", seed=1).splits["train"]
    error = tf.errors.InvalidArgumentError(None, None, "Invalid JPEG\nIn a graph")
    monkeypatch.setattr("cnnkit.data.pipeline.SEARCH_SECONDS", -1.0)
    message = (
        rf"The {len(split)} images could not all be read. Received: Invalid JPEG. `cnnkit data"
    )
    with pytest.raises(DataError, match=message), report_undecodable(split):
        raise error
    first = small_folder / split.names[0]
    data = first.read_bytes()
    first.write_bytes(data[:20] + b"\x00" * (len(data) - 22) + data[-2:])
    with (
        pytest.raises(DataError, match="1 of the first 2 images cannot be") as caught,
        report_undecodable(split),
    ):
        raise error
    assert split.names[0] in str(caught.value)


def test_autotuning_is_off_and_functions_are_not_rewritten():
    """Fails when TensorFlow changes how its autotuning and AutoGraph are switched off."""
    digits = load_dataset("digits").splits["test"]
    dataset = batches(digits, augmentation=EIGHT, batch_size=8)
    assert dataset.options().autotune.enabled is False

    def branch(index):
        return index if index > 0 else -index

    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        parallel_map(tf.data.Dataset.range(3), branch)


def test_decoding_is_traced_once_for_all_datasets_and_epochs(monkeypatch, rng):
    traced = []
    right = decode._augment

    def count(*given, **options):
        traced.append(given)
        return right(*given, **options)

    monkeypatch.setattr(decode, "_augment", count)
    # Of a size that no other test has.
    how = Augmentation(13, scale=(14, 16), crop="random")
    split = split_of([smooth(rng, 24, 32), smooth(rng, 32, 24)], jpeg)
    list(batches(split, augmentation=how, batch_size=2))
    list(batches(split.subset([1]), augmentation=how, batch_size=1, epoch=1))
    assert len(traced) == 1
    # A limit is part of what is traced.
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "100")
    with pytest.raises(DataError, match="100 in all"), report_undecodable(split):
        list(batches(split, augmentation=how, batch_size=2))

"""Small datasets in memory: the same pixels as from their files, which are read once."""

import shutil

import numpy as np
import pytest
from PIL import Image

from cnnkit.data import Augmentation, batches, cache_in_memory, load_dataset
from cnnkit.errors import DataError

SIDE = 12


@pytest.fixture
def folder(tmp_path, rng):
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
def test_batches_have_the_bits_of_the_files(folder, augmentation):
    split = load_dataset(f"folder:{folder}").splits["train"]
    held = cache_in_memory(split)
    assert held.pixels.shape == (16, SIDE, SIDE, 3)
    order = np.array([3, 15, 0, 7, 7, 1, 2])
    options = {"augmentation": augmentation, "batch_size": 3, "order": order, "seed": 5, "epoch": 2}
    expected = list(batches(split, **options).as_numpy_iterator())
    shutil.rmtree(folder)  # nothing is read any more
    found = list(batches(held, **options).as_numpy_iterator())
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        for name in expected[0]:
            np.testing.assert_array_equal(one[name], other[name])


def test_what_does_not_fit_stays_in_its_files(folder):
    split = load_dataset(f"folder:{folder}").splits["train"]
    size = len(split) * SIDE * SIDE * 3
    assert cache_in_memory(split, max_bytes=size).pixels is not None
    assert cache_in_memory(split, max_bytes=size - 1) is split


def test_images_of_several_sizes_stay_in_their_files(folder):
    Image.new("RGB", (SIDE, SIDE + 1)).save(folder / "b" / "9.jpg")
    splits = load_dataset(f"folder:{folder}").splits
    with_it = [split for split in splits.values() if "b/9.jpg" in split.names]
    assert [cache_in_memory(split) is split for split in with_it] == [True]


def test_a_broken_image_is_named(folder):
    file = folder / "b" / "3.jpg"
    data = file.read_bytes()
    split = load_dataset(f"folder:{folder}", seed=1).splits["train"]
    assert "b/3.jpg" in split.names
    # Its two ends are whole, so that it was taken for an image.
    file.write_bytes(data[:20] + b"\x00" * (len(data) - 22) + data[-2:])
    with pytest.raises(DataError, match=r"cannot be decoded. Received: b/3.jpg"):
        cache_in_memory(split)


def test_what_keeps_an_image_as_it_is():
    """An augmentation keeps images only where nothing at all is done to them."""
    assert Augmentation(8).is_identity(8, 8)
    for augmentation, sides in (
        (Augmentation(8), (8, 9)),
        (Augmentation(8), (16, 16)),
        (Augmentation(8, scale=(16, 16)), (16, 16)),
        (Augmentation(8, scale=(8, 16)), (8, 8)),
        (Augmentation(8, crop="random"), (8, 8)),
        (Augmentation(8, flip=True), (8, 8)),
    ):
        assert not augmentation.is_identity(*sides)

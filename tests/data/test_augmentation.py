"""Settings of the augmentation, and the random parameters of an epoch."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Augmentation, PCAColorNoise
from cnnkit.data.augmentation import sample_augmentation
from cnnkit.data.crops import augment_image
from cnnkit.errors import UsageError
from tests.helpers.images import USUAL


def test_random_crops_reach_every_place_equally():
    options = Augmentation(8, scale=(10, 10), crop="random")
    position = sample_augmentation(options, 9000)["position"]
    counts = np.histogram2d(*(position * 3).astype(int).T, bins=(3, 3))[0]
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 8 / 9)
    y, x = np.mgrid[0:10, 0:10].astype(np.float32)
    image = np.stack([y, x, y], -1)
    for place in ((0, 0), (0.999, 0), (0.4, 0.999)):
        crop = augment_image(
            tf.constant(image), options, {"position": tf.constant(place, tf.float64)}
        )
        np.testing.assert_allclose(crop[0, 0, :2], np.floor(np.array(place) * 3), atol=1e-5)


def test_jitter_draws_every_side_of_its_range():
    drawn = sample_augmentation(Augmentation(224, scale=(256, 512)), 20_000, seed=1)["scale"]
    assert (drawn.min(), drawn.max()) == (256, 512)
    counts = np.bincount(drawn - 256)
    assert len(counts) == 257
    assert np.abs(counts - 20_000 / 257).max() < 6 * np.sqrt(20_000 / 257)


@pytest.mark.parametrize(
    ("mode", "expected"), [("std", (11.9, 3.5, 1.71)), ("eig01", (5.55, 0.48, 0.11))]
)
def test_color_noise_has_the_known_deviations(mode, expected):
    options = Augmentation(4, color=PCAColorNoise(USUAL, mode))
    shift = sample_augmentation(options, 200_000)["shift"]
    along = shift @ np.linalg.inv(np.array(USUAL.eigenvectors)).T
    np.testing.assert_allclose(along.std(axis=0), expected, rtol=0.01, atol=0.006)
    np.testing.assert_allclose(along.mean(axis=0), 0, atol=0.06)
    assert np.abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.01


def test_choices_do_not_depend_on_the_number_of_images():
    options = Augmentation(8, scale=(9, 20), crop="ten", color=PCAColorNoise(USUAL))
    few, many = (sample_augmentation(options, count, seed=2, epoch=9) for count in (7, 1000))
    assert sorted(few) == ["mirror", "position", "scale", "shift"]
    for name, rows in few.items():
        np.testing.assert_array_equal(rows, many[name][:7])


def test_is_identity_only_if_nothing_is_done():
    """An augmentation keeps images only where nothing at all is done to them."""
    assert Augmentation(8).is_identity(8, 8)
    for augmentation, sides in (
        (Augmentation(8), (8, 9)),
        (Augmentation(8), (16, 16)),
        (Augmentation(8, scale=(16, 16)), (16, 16)),
        (Augmentation(8, scale=(8, 16)), (8, 8)),
        (Augmentation(8, crop="random"), (8, 8)),
        (Augmentation(8, flip=True), (8, 8)),
        (Augmentation(8, color=PCAColorNoise(USUAL)), (8, 8)),
    ):
        assert not augmentation.is_identity(*sides)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"image_size": 0}, "`image_size` must be positive. Expected: at least 1. Received: 0"),
        ({"image_size": 8, "crop": "centr"}, "Unknown crop 'centr'.*Did you mean center"),
        ({"image_size": 8, "crop": "ten", "flip": True}, "mirrored already"),
        ({"image_size": 8, "scale": (7, 9)}, "too small for the crop. Expected: at least 8"),
        (
            {"image_size": 8, "scale": (12, 9)},
            "`scale` must be an ascending range.*Received: .12, 9.",
        ),
    ],
)
def test_wrong_augmentation(fields, text):
    with pytest.raises(UsageError, match=text):
        Augmentation(**fields)


def test_the_smallest_settings_are_taken():
    assert Augmentation(1).scales == (1, 1)
    np.testing.assert_array_equal(PCAColorNoise(USUAL, deviation=0).deviations, 0)


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"mode": "eig"}, "Unknown mode of color noise 'eig'"), ({"deviation": -1}, "at least 0"),
     ({"deviation": float("nan")}, "at least 0"), ({"deviation": float("inf")}, "at least 0")],
)  # fmt: skip
def test_wrong_color_noise(fields, text):
    with pytest.raises(UsageError, match=text):
        PCAColorNoise(USUAL, **fields)

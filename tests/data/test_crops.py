"""Rescaling, cropping, mirroring and tinting against Pillow and NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Augmentation, PCAColorNoise
from cnnkit.data.augmentation import sample_augmentation
from cnnkit.data.crops import array_window_reader, crop_image
from tests.helpers.images import USUAL, augmented, resize_with_pillow, smooth, split_of


@pytest.mark.parametrize("sides", [(120, 90), (75, 140), (64, 64), (40, 48)])
def test_random_crops_are_windows_of_the_rescaled_image(rng, sides):
    image = smooth(rng, *sides)
    options = Augmentation(48, scale=(64, 64), crop="random", flip=True)
    choices = sample_augmentation(options, 12, seed=3, epoch=2)
    shown = augmented(split_of([image] * 12), options, batch_size=4, seed=3, epoch=2)
    ratio = 64 / min(sides)
    play = np.array([max(64, round(side * ratio)) - 48 for side in sides])
    corners = set()
    for i in range(12):
        top, left = (choices["position"][i] * (play + 1)).astype(int)
        expected = resize_with_pillow(image, 64, top, left, 48)
        expected = expected[:, ::-1] if choices["mirror"][i] else expected
        # Pillow rounds to whole levels, twice; enlarging, it also weighs a little differently.
        assert np.abs(shown[i] - expected).max() < 1.6
        corners.add((top, left))
    assert len(corners) > 6


@pytest.mark.parametrize("scaled", [(20, 45), (80, 60)])
def test_fast_rescaling_is_linear_between_the_centers_of_pixels(scaled):
    y, x = np.mgrid[0:40, 0:60].astype(np.float32)
    image, whole = tf.constant(np.stack([y, x, 0 * x], -1)), tf.constant(scaled)
    shown = crop_image(
        array_window_reader(image), tf.constant([40, 60]), whole, tf.constant([0, 0]), whole,
        fast=True,
    )  # fmt: skip
    for seen, side, pixels in ((shown[:, 0, 0], 40, scaled[0]), (shown[0, :, 1], 60, scaled[1])):
        centers = (np.arange(pixels) + 0.5) * side / pixels - 0.5
        np.testing.assert_allclose(seen, centers.clip(0, side - 1), atol=1e-4)


def test_jitter_rescales_the_shorter_side(rng):
    image = smooth(rng, 96, 160)
    options = Augmentation(32, scale=(40, 90))
    sides = sample_augmentation(options, 6)["scale"]
    shown = augmented(split_of([image] * 6), options, batch_size=6)
    for i, side in enumerate(sides):
        width = max(side, round(160 * side / 96))
        expected = resize_with_pillow(image, side, (side - 32) // 2, (width - 32) // 2, 32)
        assert np.abs(shown[i] - expected).max() < 1.6


@pytest.mark.parametrize("square", [False, True])
def test_ten_crops_are_equally_likely_and_in_place(square):
    y, x = np.mgrid[0:32, 0:48]
    image = np.stack([y, x, np.zeros_like(x)], -1).astype(np.uint8)
    options = Augmentation(24, scale=(32, 32), crop="ten", central_square=square)
    shown = augmented(split_of([image] * 500), options, batch_size=100, seed=7)
    left, right = (8, 16) if square else (0, 24)
    tops_and_lefts = [(0, left), (0, right), (8, left), (8, right), (4, 12)]
    ten = [image[t : t + 24, f : f + 24].astype(np.float32) for t, f in tops_and_lefts]
    ten += [crop[:, ::-1] for crop in ten]
    counts = np.zeros(10, int)
    for crop in shown.values():
        [which] = [i for i, one in enumerate(ten) if np.abs(one - crop).max() < 1e-3]
        counts[which] += 1
    assert counts.sum() == 500
    assert counts.min() > 50 - 5 * np.sqrt(45)


def test_square_stays_inside_the_central_square():
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, 32:64] = 200
    options = {"image_size": 24, "scale": (32, 32), "crop": "random"}
    split = split_of([image] * 50)
    inside = augmented(split, Augmentation(**options, central_square=True), batch_size=50)
    assert min(crop.min() for crop in inside.values()) == 200
    anywhere = augmented(split, Augmentation(**options), batch_size=50)
    assert min(crop.max() for crop in anywhere.values()) == 0


def test_color_noise_is_one_color_for_the_whole_image(rng):
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    plain = Augmentation(16, scale=(20, 20), crop="random", flip=True)
    noisy = Augmentation(
        16, scale=(20, 20), crop="random", flip=True, color=PCAColorNoise(USUAL, deviation=0.5)
    )
    split = split_of([image] * 4)
    without, noise = (augmented(split, options, batch_size=4) for options in (plain, noisy))
    shift = sample_augmentation(noisy, 4)["shift"]
    for i in range(4):
        # The noise moves neither the crop nor the mirror, and nothing is clipped.
        np.testing.assert_allclose(noise[i] - without[i], np.broadcast_to(shift[i], (16, 16, 3)),
                                   atol=1e-4)  # fmt: skip
    assert min(image.min() for image in noise.values()) < 0

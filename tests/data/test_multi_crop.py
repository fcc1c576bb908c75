"""Crops and whole images against the pixels of training and against slicing by hand."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Augmentation, Split
from cnnkit.data.crops import array_window_reader, augment_image
from cnnkit.data.multi_crop import (
    CENTER,
    CORNERS_AND_CENTER,
    GRID,
    CropSpec,
    crop_batches,
    extract_crops,
)
from cnnkit.errors import UsageError

WIDE, TALL, SQUARE, SAME = (45, 70), (83, 40), (64, 64), (32, 48)


def pixels(sides, rng):
    return rng.integers(0, 256, (*sides, 3), np.uint8)


def taken(image, view):
    return extract_crops(
        array_window_reader(tf.constant(image)), tf.constant(image.shape[:2]), view
    ).numpy()


@pytest.mark.parametrize("sides", [WIDE, TALL, SQUARE, SAME])
def test_the_center_crop_equals_that_of_training(rng, sides):
    image = pixels(sides, rng)
    [crop] = taken(image, CropSpec(32, 24, CENTER))
    expected = augment_image(tf.constant(image), Augmentation(24, scale=(32, 32)), {}).numpy()
    np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("places", [CORNERS_AND_CENTER, GRID])
@pytest.mark.parametrize("sides", [WIDE, TALL, SQUARE, SAME])
def test_crops_are_windows_of_the_whole_image(rng, sides, places, square):
    image = pixels(sides, rng)
    [whole] = taken(image, CropSpec(32))
    height, width = whole.shape[:2]
    assert min(height, width) == 32
    assert (height > width) == (sides[0] > sides[1])
    crops = taken(image, CropSpec(32, 24, places, square))
    assert len(crops) == len(places)
    room = (32, 32) if square else (height, width)
    for crop, part in zip(crops, places, strict=True):
        top, left = (
            int(p * (r - 24)) + (whole_side - r) // 2
            for p, r, whole_side in zip(part, room, (height, width), strict=True)
        )
        np.testing.assert_allclose(crop, whole[top : top + 24, left : left + 24], atol=2e-3)


def test_a_grid_reaches_the_borders_evenly():
    tops = sorted({top for top, _ in GRID})
    assert len(GRID) == 25
    assert tops[0] == 0
    assert tops[-1] == 1
    assert np.ptp(np.diff(tops)) == 0


def test_an_image_that_fits_stays_as_it_is(rng):
    image = pixels(SAME, rng)
    np.testing.assert_array_equal(taken(image, CropSpec(32))[0], image)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_files_give_the_pixels_of_their_decoded_image(rng, kind):
    encode = tf.io.encode_jpeg if kind == "jpeg" else tf.io.encode_png
    files = tf.stack([encode(pixels(sides, rng)) for sides in (WIDE, TALL, SQUARE)])
    split = Split.from_files(np.zeros(3, np.int32), "abc", lambda index: tf.gather(files, index))
    one, two = CropSpec(32, 24, GRID), CropSpec(40, 24, CORNERS_AND_CENTER)
    [alone] = zip(*crop_batches(split, [one], batch_size=2), strict=True)
    both, _ = zip(*crop_batches(split, [one, two], batch_size=2), strict=True)
    np.testing.assert_allclose(np.concatenate(alone), np.concatenate(both), atol=2e-3)


def test_whole_images_come_one_by_one_and_the_first_can_be_left_out(rng):
    images = [pixels(sides, rng) for sides in (WIDE, TALL)]
    files = tf.stack([tf.io.encode_png(image) for image in images])
    split = Split.from_files(np.zeros(2, np.int32), "ab", lambda index: tf.gather(files, index))
    shapes = [
        whole.shape.as_list() for (whole,) in crop_batches(split, [CropSpec(40)], batch_size=5)
    ]
    assert shapes == [[1, 1, 40, 62, 3], [1, 1, 83, 40, 3]]
    [(last,)] = crop_batches(split, [CropSpec(40)], batch_size=5, start=1)
    assert last.shape == (1, 1, 83, 40, 3)


def test_too_small_scales_and_empty_batches_are_refused():
    with pytest.raises(UsageError, match="at least 24. Received: 23"):
        CropSpec(23, 24)
    with pytest.raises(UsageError, match="`batch_size` must be positive. Expected: at least 1"):
        crop_batches(None, [CropSpec(24, 24)], batch_size=0)

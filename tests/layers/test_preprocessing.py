"""Subtraction of the mean at every precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.layers import (
    SubtractMean,
)


def test_mean_is_subtracted_in_float32(tmp_path):
    images = np.array([[[[255.0, 254.0, 253.0]]]], "float32")
    layer = SubtractMean((254.0, 254.0, 254.0), dtype="mixed_bfloat16")
    # bfloat16 has eight bits: 255 and 254 and 253 would be 255, 254 and 253 rounded to even ones.
    np.testing.assert_array_equal(tf.cast(layer(images), tf.float32)[0, 0, 0], [1, 0, -1])
    model = keras.Sequential([keras.Input((1, 1, 3)), layer])
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(tf.cast(loaded(images), tf.float32)[0, 0, 0], [1, 0, -1])


def test_the_stored_mean_counts_and_not_that_of_the_configuration(tmp_path):
    model = keras.Sequential([keras.Input((1, 1, 3)), SubtractMean((1, 2, 3), std=(1, 1, 1))])
    model.save_weights(tmp_path / "m.weights.h5")
    other = keras.Sequential([keras.Input((1, 1, 3)), SubtractMean((0, 0, 0), std=(2, 2, 2))])
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(other(np.full((1, 1, 1, 3), 4.0))[0, 0, 0], [3, 2, 1])


@pytest.mark.parametrize(
    ("mean", "shape"),
    [
        ((1, 2, 3), (1, 4, 5, 1)),
        ((1, 2, 3), (4, 5, 3)),
        (np.ones((4, 5, 3)), (1, 1, 5, 3)),
        (np.ones((4, 5, 3)), (1, 4, 1, 3)),
        (np.ones((4, 5, 3)), (1, 4, 5, 1)),
    ],
)
def test_images_that_would_be_stretched_to_the_mean_are_refused(mean, shape):
    of_mean = " of the size of the mean image" if np.ndim(mean) == 3 else ""
    with pytest.raises(UsageError, match=f"must be RGB images{of_mean}. Expected"):
        SubtractMean(mean)(np.ones(shape, "float32"))
    with pytest.raises(UsageError, match="must be RGB images.*Received"):
        SubtractMean(mean)(np.ones(shape, "float32"))
    with pytest.raises(UsageError, match="must be RGB images.*Received"):
        SubtractMean(mean)(keras.Input(batch_shape=shape))


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        ((1, 2), None, "`mean` must be that of RGB images"),
        (np.ones((4, 3)), None, "`mean` must be that of RGB images"),
        (np.ones((4, 5, 1)), None, "`mean` must be that of RGB images"),
        ((1, np.nan, 3), None, "`mean` must be finite"),
        ((1, 2, 3), (1, 2), "`std` must hold one deviation for each channel"),
        ((1, 2, 3), (1, 0, 2), "3 values above zero"),
        ((1, 2, 3), (1, np.inf, 2), "3 values above zero"),
        ((1, 2, 3), np.ones((4, 5, 3)), "3 values above zero"),
    ],
)
def test_wrong_statistics_are_refused(mean, std, text):
    with pytest.raises(UsageError, match=text):
        SubtractMean(mean, std)
    layer = SubtractMean((1, 2, 3), (4, 5, 6))
    with pytest.raises(UsageError, match=text):
        layer.set_statistics(mean, std)


def test_a_file_without_a_deviation_has_none(tmp_path):
    model = keras.Sequential([keras.Input((1, 1, 3)), SubtractMean((1, 2, 3))])
    model.save_weights(tmp_path / "m.weights.h5")
    other = keras.Sequential([keras.Input((1, 1, 3)), SubtractMean((0, 0, 0), std=(2, 2, 2))])
    other.load_weights(tmp_path / "m.weights.h5")
    assert other.layers[0].std is None
    np.testing.assert_array_equal(other(np.full((1, 1, 1, 3), 4.0))[0, 0, 0], [3, 2, 1])


def test_a_mean_image_is_subtracted_at_its_places(rng):
    mean, std = rng.uniform(0, 255, (4, 5, 3)), np.array([2.0, 4.0, 8.0])
    images = rng.uniform(0, 255, (2, 4, 5, 3)).astype("float32")
    layer = SubtractMean(mean, std)
    np.testing.assert_allclose(layer(images), (images - mean) / std, rtol=1e-4, atol=1e-4)
    free = keras.Model(*(lambda x: (x, layer(x)))(keras.Input((None, None, 3))))
    np.testing.assert_allclose(free(images), (images - mean) / std, rtol=1e-4, atol=1e-4)
    color = SubtractMean((1, 2, 3), std)
    free = keras.Model(*(lambda x: (x, color(x)))(keras.Input((None, None, 3))))
    np.testing.assert_allclose(free(images), (images - [1, 2, 3]) / std, rtol=1e-4, atol=1e-4)

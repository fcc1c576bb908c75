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
    with pytest.raises(UsageError, match="must be RGB images.*Received"):
        SubtractMean(mean)(np.ones(shape, "float32"))
    with pytest.raises(UsageError, match="must be RGB images.*Received"):
        SubtractMean(mean)(keras.Input(batch_shape=shape))

"""Winograd gradients against sums in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.training._kernels import winograd
from tests.helpers.convolution_by_hand import both_gradients


def case(rng, count, height, width, channels, filters, size):
    """Return images, a kernel and an output gradient."""
    shapes = (count, height, width, channels), (size, size, channels, filters)
    return [rng.normal(size=shape) for shape in (*shapes, (count, height, width, filters))]


@pytest.mark.parametrize("size, points", [(3, 6), (3, 7), (3, 8), (5, 6), (5, 7), (5, 8), (7, 8)])
@pytest.mark.parametrize("height, width", [(1, 1), (2, 9), (7, 5), (13, 12)])
def test_gradients_equal_the_sums_by_hand(rng, monkeypatch, size, points, height, width):
    monkeypatch.setattr(winograd, "winograd_points", lambda *args: points)
    arrays = case(rng, 3, height, width, 2, 4, size)
    found = winograd.winograd_gradients(*map(tf.constant, arrays))
    for one, other in zip(found, both_gradients(*arrays), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)


def test_images_in_parts_give_the_same(rng, monkeypatch):
    arrays = case(rng, 5, 6, 7, 3, 2, 3)
    monkeypatch.setattr(winograd, "_BYTES", 2 * 8 * 5 * 144)
    products = []
    whole = tf.matmul
    monkeypatch.setattr(
        tf, "matmul", lambda a, b, **options: products.append(b.shape) or whole(a, b, **options)
    )
    found = winograd.winograd_gradients(*map(tf.constant, arrays))
    for one, other in zip(found, both_gradients(*arrays), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)
    assert len(products) > 20, "the images were not divided"


@pytest.mark.parametrize("size, side", [(3, 8), (3, 10), (3, 12), (5, 12), (7, 8)])
def test_float32_loses_few_digits(rng, size, side):
    arrays = case(rng, 4, side, side, 48, 64, size)
    found = winograd.winograd_gradients(*(tf.constant(array, tf.float32) for array in arrays))
    for one, other in zip(found, both_gradients(*arrays), strict=True):
        assert np.std(one - other) < 6e-6 * np.std(other)


@pytest.mark.parametrize(
    "height, width, size, points",
    # Tiles of an axis, times points: for 13 and size 3: 4 x 6, 3 x 7, 3 x 8.
    [(13, 13, 3, 7), (8, 8, 3, 6), (56, 56, 3, 8), (27, 27, 5, 8), (9, 9, 5, 7), (14, 14, 7, 8)],
)
def test_the_fewest_values_are_made(height, width, size, points):
    assert winograd.winograd_points(height, width, size) == points

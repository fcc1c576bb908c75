"""Filter gradients in bands against the sum that they are."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.training import bands


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("rows", [1, 2, 7, 9])
def test_bands_equal_the_sum_by_hand(rng, size, rows):
    images, signal = rng.normal(size=(3, 7, 5, 2)), rng.normal(size=(3, 7, 5, 4))
    half = size // 2
    padded = np.pad(images, [(0, 0), (half, half), (half, half), (0, 0)])
    expected = np.empty((size, size, 2, 4))
    for row, column in np.ndindex(size, size):
        seen = padded[:, row : row + 7, column : column + 5]
        expected[row, column] = np.einsum("nhwc,nhwf->cf", seen, signal)
    found = bands.filter_gradient(tf.constant(images), tf.constant(signal), size, rows)
    np.testing.assert_allclose(found, expected, atol=1e-12)

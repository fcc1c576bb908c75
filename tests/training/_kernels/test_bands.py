"""Filter gradients in bands against the sum that they are."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.training._kernels import conv_gradients
from tests.helpers.convolution_by_hand import both_gradients


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("rows", [1, 2, 7, 9])
def test_bands_equal_the_sum_by_hand(rng, size, rows):
    images, signal = rng.normal(size=(3, 7, 5, 2)), rng.normal(size=(3, 7, 5, 4))
    _, expected = both_gradients(images, np.zeros((size, size, 2, 4)), signal)
    found = conv_gradients.banded_filter_gradient(
        tf.constant(images), tf.constant(signal), size, rows
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)

"""Grouped kernels and the equal dense ones, against sums over windows in float64."""

import keras
import numpy as np
import pytest

from cnnkit import alexnet
from cnnkit.errors import UsageError
from cnnkit.layers import GroupedConv2D
from cnnkit.models.surgery import (
    group_kernel,
    to_dense_convolutions,
    to_grouped_convolutions,
    ungroup_kernel,
)
from tests.helpers.surgery_networks import (
    assert_same_weights,
    assert_untouched,
    chain,
    frozen_copy,
    small_alexnet,
    tiny,
)


def by_hand(image, kernel, groups):
    """Grouped convolution, VALID, as sums over windows in float64."""
    size, _, depth, filters = kernel.shape
    rows, columns = (side - size + 1 for side in image.shape[1:3])
    out = np.zeros((len(image), rows, columns, filters))
    for f in range(filters):
        g = f // (filters // groups)
        part = image[..., g * depth : (g + 1) * depth].astype("float64")
        for i in range(rows):
            for j in range(columns):
                window = part[:, i : i + size, j : j + size]
                out[:, i, j, f] = (window * kernel[..., f]).sum((1, 2, 3))
    return out


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_an_ungrouped_kernel_does_the_same(rng, groups):
    kernel = rng.normal(size=(3, 3, 2, 6)).astype("float32")
    image = rng.normal(size=(2, 5, 6, 2 * groups)).astype("float32")
    dense = ungroup_kernel(kernel, groups)
    assert dense.shape == (3, 3, 2 * groups, 6) and dense.dtype == kernel.dtype
    found = keras.ops.conv(image, dense, padding="valid")
    np.testing.assert_allclose(found, by_hand(image, kernel, groups), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(group_kernel(dense, groups), kernel)


def test_a_kernel_that_mixes_is_not_grouped(rng):
    dense = ungroup_kernel(rng.normal(size=(1, 1, 2, 4)), 2)
    dense[0, 0, 0, 2] = -0.25
    with pytest.raises(UsageError, match=r"1 of 8 values off the diagonal .* largest 0\.25\."):
        group_kernel(dense, 2)


def test_alexnet_with_one_tower_and_again_with_two(rng):
    model = small_alexnet()
    before = frozen_copy(model)
    one = to_dense_convolutions(model)
    image = rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(one(image), model(image), rtol=1e-4, atol=1e-6)
    # The shapes of the network that is built with one tower.
    built = alexnet(input_shape=(64, 64, 3), classes=5, groups=1)
    assert [w.shape for w in one.weights] == [w.shape for w in built.weights]
    assert [type(layer) for layer in one.layers] == [type(layer) for layer in built.layers]
    two = to_grouped_convolutions(one)
    assert_same_weights(model, two)
    np.testing.assert_array_equal(two(image), model(image))
    assert_untouched(model, before)
    with pytest.raises(UsageError, match="Layer 'conv2' cannot be grouped.* off the diagonal"):
        to_grouped_convolutions(built)


def test_keras_convolutions_become_ours():
    model = chain(keras.layers.Conv2D(6, 1, groups=3, use_bias=False, name="c"), side=2)
    one = to_dense_convolutions(model)
    assert type(one.get_layer("c")) is GroupedConv2D and one.get_layer("c").groups == 1
    assert_same_weights(model, to_grouped_convolutions(one, 3, ["c"]))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ungroup_kernel(np.zeros((1, 1, 2, 5)), 2), "multiples of 2. Received: 5 outputs"),
        (lambda: group_kernel(np.zeros((1, 1, 3, 4)), 2), "Received: 3 inputs, 4 outputs"),
        (lambda: group_kernel(np.zeros((3, 4)), 2), "`kernel` must have four axes"),
        (lambda: group_kernel(np.zeros((1, 1, 2, 2)), 0), "whole number >= 1. Received: 0"),
        (lambda: to_grouped_convolutions(tiny(), 2, ("conv9",)), "Unknown layer 'conv9'"),
        (lambda: to_grouped_convolutions(tiny(), 2, ("fc6",)), "'fc6' cannot be grouped. Expected"),
        (
            lambda: to_grouped_convolutions(tiny(), 3, "conv1"),
            "'conv1' cannot be grouped: `groups` must divide the channels",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)

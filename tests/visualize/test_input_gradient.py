"""The gradient of a convolution in its input alone is that of TensorFlow's own tape."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.layers import GroupedConv2D
from cnnkit.visualize.input_gradient import without_kernel_gradient

KINDS = (
    # Kernel, stride, padding, channels, groups; the first three in blocks.
    (11, 4, "valid", 3, 1),
    (7, 2, "valid", 3, 1),
    (3, 3, "valid", 1, 1),
    (5, 1, "same", 4, 2),
    (3, 2, "same", 3, 1),
    (3, 2, "valid", 8, 2),
)


@pytest.mark.parametrize(("kernel", "stride", "padding", "channels", "groups"), KINDS)
def test_the_gradient_is_that_of_a_tape_at_every_size(kernel, stride, padding, channels, groups):
    rng = np.random.default_rng(kernel)
    layer = GroupedConv2D(8, kernel, strides=stride, padding=padding, groups=groups)
    for height in range(11, 17):
        images = tf.constant(rng.normal(size=(2, height, 27 - height, channels)), tf.float32)
        signal = tf.constant(rng.normal(size=layer(images).shape), tf.float32)
        weights = tf.convert_to_tensor(layer.kernel.value)
        with tf.GradientTape() as tape:
            tape.watch([images, weights])
            maps = layer.convolution_op(images, weights)
        expected = tape.gradient(maps, images, signal)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([images, weights])
            ours = without_kernel_gradient(
                lambda x, weights=weights: layer.convolution_op(x, weights),
                layer, images, weights, padding,
            )  # fmt: skip
        np.testing.assert_array_equal(ours, maps)
        np.testing.assert_allclose(tape.gradient(ours, images, signal), expected, atol=2e-5)
        # That of the kernel is left out.
        assert tape.gradient(ours, weights) is None


def test_other_convolutions_keep_their_gradient():
    layer = GroupedConv2D(2, 3, dilation_rate=2)
    images = tf.constant(np.random.default_rng(0).normal(size=(1, 9, 9, 3)), tf.float32)
    layer(images)
    weights = tf.convert_to_tensor(layer.kernel.value)
    with tf.GradientTape() as tape:
        tape.watch([images, weights])
        maps = without_kernel_gradient(
            lambda x: layer.convolution_op(x, weights), layer, images, weights, "valid"
        )
    # The tape sees the kernel: nothing was replaced.
    assert all(one is not None for one in tape.gradient(maps, [images, weights]))

"""Grouped convolutions against separate convolutions of each group."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.layers import (
    GroupedConv2D,
    ReLU,
)
from cnnkit.layers.grouped_conv import _convolve_blocks
from tests.helpers.layer_contract import check_layer


def test_grouped_convolution_equals_two_split_convolutions(rng):
    x = tf.constant(rng.normal(size=(2, 9, 9, 8)), tf.float32)
    layer = GroupedConv2D(6, 3, groups=2, padding="same", strides=2)
    layer.build(x.shape)
    kernel, bias = layer.weights
    bias.assign(np.arange(6.0))

    def split(x, kernel):
        halves = [
            tf.nn.conv2d(part, half, 2, "SAME")
            for part, half in zip(tf.split(x, 2, -1), tf.split(kernel, 2, -1), strict=True)
        ]
        return tf.concat(halves, -1) + tf.range(6.0)

    results = []
    for function in (lambda: layer(x), lambda: split(x, kernel.value)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function()
            loss = tf.reduce_sum(y**2)
        results.append((y, *tape.gradient(loss, [x, kernel.value])))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sides", "kernel", "stride"),
    [((31, 35), (11, 11), 4), ((20, 23), (7, 5), 2), ((9, 10), (2, 3), 3), ((8, 8), (4, 4), 4)],
)
def test_a_convolution_of_blocks_equals_one_with_a_stride(sides, kernel, stride, rng):
    """As a GPU computes the first layer of a network with JAX."""
    inputs = rng.normal(size=(2, *sides, 3)).astype("float32")
    weights = rng.normal(size=(*kernel, 3, 5)).astype("float32")
    np.testing.assert_allclose(
        _convolve_blocks(inputs, weights, stride),
        tf.nn.conv2d(inputs, weights, stride, "VALID"),
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("make", "shape", "scale"),
    [
        (lambda **k: GroupedConv2D(6, 3, groups=2, padding="same", **k), (2, 7, 8, 4), 1.0),
        (
            lambda **k: GroupedConv2D(6, 3, groups=2, strides=2, activation=ReLU(), **k),
            (2, 7, 8, 4),
            1.0,
        ),
    ],
    ids=["grouped", "grouped-relu"],
)
def test_contract(make, shape, scale, rng, tmp_path):
    inputs = rng.normal(0, scale, shape).astype("float32")
    outputs = check_layer(make, inputs, tmp_path)
    assert np.isfinite(outputs).all()


GROUPED_WITHOUT_ONEDNN = """
import numpy as np, tensorflow as tf
from cnnkit.layers import GroupedConv2D, ReLU
random = np.random.default_rng(0)
x = tf.constant(random.normal(size=(2, 9, 9, 8)), tf.float32)
layer = GroupedConv2D(6, 3, groups=2, activation=ReLU(), bias_initializer="ones")
layer.build(x.shape)
whole = np.zeros((3, 3, 8, 6), "float32")  # the same convolution with zeros between the groups
whole[:, :, :4, :3], whole[:, :, 4:, 3:] = tf.split(layer.kernel.numpy(), 2, -1)

@tf.function
def ours(x):
    return layer(x), tf.gradients(layer(x), [x])[0]

@tf.function
def plain(x):
    y = tf.nn.relu(tf.nn.conv2d(x, whole, 1, "VALID") + 1)
    return y, tf.gradients(y, [x])[0]

for one, other in zip(ours(x), plain(x)):
    np.testing.assert_allclose(one, other, atol=1e-5)
print("equal")
"""


def test_grouped_convolution_on_a_processor_without_onednn():
    """Without oneDNN, TensorFlow's grouped kernel has no gradient and fails before a bias."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", GROUPED_WITHOUT_ONEDNN]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr

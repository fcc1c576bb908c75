"""Windows of layers and operations: only what is known to work position by position has them."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit.layers import GroupedConv2D, ReLU
from cnnkit.models.graph import build_graph
from cnnkit.models.layer_window import is_elementwise, node_windows, window_of
from tests.visualize.occlusion.networks import Standardized, normalized

FUNCTIONS = {
    f"{prefix}.{name}": function
    for prefix, module in (("keras", keras.activations), ("ops", keras.ops), ("tf", tf.nn))
    for name, function in vars(module).items()
    if inspect.isroutine(function) and is_elementwise(function)
}


def test_the_usual_activations_are_known():
    for name in ("relu", "gelu", "silu", "sigmoid", "tanh", "elu", "softplus", "leaky_relu"):
        assert is_elementwise(keras.activations.get(name)), name
    for function in (tf.nn.relu, tf.nn.leaky_relu, tf.nn.silu, tf.tanh, keras.ops.relu6, ReLU()):
        assert is_elementwise(function), function
    for function in (normalized, lambda x: x, tf.nn.softmax, keras.activations.softmax):
        assert not is_elementwise(function), function


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_value_of_an_elementwise_activation_changes_nothing_else(name, rng):
    values = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    changed = values.copy()
    changed[0, 1, 2, 1] += 5
    extra = (0.1, 0.2) if name.endswith("threshold") else ()
    one, other = (np.asarray(FUNCTIONS[name](x, *extra)) for x in (values, changed))
    assert np.argwhere(one != other).tolist() in ([[0, 1, 2, 1]], [])


UNKNOWN = {
    "custom activation": layers.Conv2D(2, 3, activation=normalized),
    "custom activation layer": layers.Activation(normalized),
    "dense": layers.Dense(2, activation=normalized),
    "a layer as activation": layers.Conv2D(2, 3, activation=layers.Softmax(axis=1)),
    "softmax over rows": layers.Softmax(axis=1),
    "own convolution": Standardized(2, 3),
    "upsampling": layers.UpSampling2D(2),
    "channels first": layers.Conv2D(2, 3, data_format="channels_first"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_layer_that_may_mix_positions_has_no_windows(name):
    assert window_of(UNKNOWN[name]) is None


def test_known_layers_have_windows():
    for layer in (
        layers.Conv2D(2, 3, activation=tf.nn.relu),
        layers.Conv2D(2, 3, activation=layers.LeakyReLU()),
        GroupedConv2D(2, 3, groups=1),
        layers.Softmax(),
        layers.Activation("softmax"),
        layers.RandomRotation(0.1),
    ):
        assert window_of(layer) is not None, layer


@pytest.mark.parametrize(
    ("call", "known"),
    [
        (lambda x: x / 255.0, True),
        (lambda x: x * np.ones((6, 7, 1), "float32"), True),
        (lambda x: x[..., ::-1], True),
        (lambda x: keras.ops.flip(x, axis=-1), True),
        (lambda x: keras.ops.softmax(x), True),
        (lambda x: keras.ops.softmax(x, axis=1), False),
        (lambda x: x[:, ::-1], False),
        (lambda x: keras.ops.flip(x, axis=1), False),
        (lambda x: keras.ops.transpose(x, (0, 2, 1, 3)), False),
        (lambda x: keras.ops.cumsum(x, axis=1), False),
        (lambda x: x - keras.ops.mean(x, axis=(1, 2), keepdims=True), False),
    ],
)
def test_operations(call, known):
    inputs = keras.Input((6, 7, 3))
    end = build_graph(keras.Model(inputs, call(inputs))).nodes[-1]
    assert (node_windows(end) is not None) == known

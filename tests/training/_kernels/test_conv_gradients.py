"""The choice of the method for each convolution, and its gradients against TensorFlow's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.layers import GroupedConv2D
from cnnkit.training import SGD
from cnnkit.training._kernels import conv_gradients
from cnnkit.training._kernels.conv_gradients import fast_conv_gradients
from cnnkit.training.step import StepRunner
from tests.helpers.convolution_by_hand import both_gradients

WAYS = {
    "winograd": (conv_gradients, "winograd_gradients"),
    "bands": (conv_gradients, "banded_filter_gradient"),
}


@pytest.fixture
def taken(monkeypatch):
    """Makes any processor one that gains; returns the ways that were taken."""
    names = []

    def counted(name, function):
        def call(*args):
            names.append(name)
            return function(*args)

        return call

    for name, (module, function) in WAYS.items():
        monkeypatch.setattr(module, function, counted(name, getattr(module, function)))
    monkeypatch.setattr(conv_gradients, "is_supported_processor", lambda: True)
    return names


@pytest.fixture
def always(monkeypatch):
    """Returns a function that has any convolution that can take a way take it."""

    def choose(way):
        fewest_products = way == "winograd"
        sizes = {"_CHANNELS": 0, "_CELLS": 0, "_MAP": 3600 if fewest_products else 0}
        for name, size in {**sizes, "_WORK": 0}.items():
            monkeypatch.setattr(conv_gradients, name, size)

    return choose


LAYERS = {
    "same": (keras.layers.Conv2D, {"padding": "same"}, True),
    "groups": (GroupedConv2D, {"padding": "same", "groups": 2}, True),
    "valid": (keras.layers.Conv2D, {}, False),
    "stride": (keras.layers.Conv2D, {"padding": "same", "strides": 2}, False),
    "dilation": (GroupedConv2D, {"padding": "same", "dilation_rate": 2, "groups": 2}, False),
    "even": (keras.layers.Conv2D, {"padding": "same", "kernel_size": 2}, False),
    "pixel": (keras.layers.Conv2D, {"padding": "same", "kernel_size": 1}, False),
    "large": (keras.layers.Conv2D, {"padding": "same", "kernel_size": 9}, False),
    "oblong": (keras.layers.Conv2D, {"padding": "same", "kernel_size": (3, 5)}, False),
    "float64": (keras.layers.Conv2D, {"padding": "same", "dtype": "float64"}, False),
    "bfloat16": (keras.layers.Conv2D, {"padding": "same", "dtype": "mixed_bfloat16"}, False),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LAYERS)
def test_every_convolution_keeps_its_gradients(rng, taken, always, name, way):
    always(way)
    make, options, fast = LAYERS[name]
    layer = make(**{"filters": 8, "kernel_size": 3, "activation": "relu", **options})
    images = tf.constant(rng.normal(size=(8, 9, 7, 4)), tf.float32)
    layer.build(images.shape)
    signal = rng.normal(size=layer.compute_output_shape(images.shape))
    weights = [variable.value for variable in layer.trainable_variables]

    @tf.function
    def gradients():
        with tf.GradientTape() as tape, fast_conv_gradients():
            tape.watch(images)
            total = tf.reduce_sum(layer(images) * tf.cast(signal, layer.compute_dtype))
        ways = [images, *weights]
        return tf.gradients(total, ways), tape.gradient(total, ways)

    found, expected = gradients()
    assert taken == [way] * (layer.groups if fast else 0)
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(tf.cast(other, tf.float64)).max()
        np.testing.assert_allclose(
            tf.cast(one, tf.float64), tf.cast(other, tf.float64), atol=1e-5 * scale
        )


def traced(images: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    """Makes the graph of both gradients of a convolution, which chooses the way."""

    @tf.function
    def gradients(images, kernel):
        with fast_conv_gradients():
            maps = tf.nn.conv2d(images, kernel, 1, "SAME")
        return tf.gradients(maps, [images, kernel])

    gradients.get_concrete_function(tf.TensorSpec(images), tf.TensorSpec(kernel))


# Images, height, width, channels, filters, size, and the way that was the fastest; but bands are a
# third faster for block1_conv1 of eight, and all ways alike within a tenth for cifar10's conv2.
SHAPES = {
    "alexnet conv2": ((64, 27, 27, 48, 128, 5), "winograd"),
    "alexnet conv3": ((64, 13, 13, 256, 384, 3), "winograd"),
    "alexnet conv5": ((64, 13, 13, 192, 128, 3), "winograd"),
    "alexnet conv5 of four": ((4, 13, 13, 192, 128, 3), "winograd"),
    "alexnet conv5 of one": ((1, 13, 13, 192, 128, 3), None),
    "vgg block1_conv1": ((16, 224, 224, 3, 64, 3), "bands"),
    "vgg block1_conv2": ((16, 224, 224, 64, 64, 3), "bands"),
    "vgg block1_conv2 of 64": ((64, 224, 224, 64, 64, 3), "bands"),
    "vgg block2_conv2": ((16, 112, 112, 128, 128, 3), "bands"),
    "vgg block2_conv2 of two": ((2, 112, 112, 128, 128, 3), "bands"),
    "vgg block1_conv1 of eight": ((8, 224, 224, 3, 64, 3), None),
    "vgg block3_conv1": ((16, 56, 56, 128, 256, 3), "winograd"),
    "vgg block5_conv3": ((16, 14, 14, 512, 512, 3), "winograd"),
    "cifar10 conv2": ((128, 16, 16, 32, 32, 5), None),
    "cifar10 conv3": ((128, 8, 8, 32, 64, 5), "winograd"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_takes_its_way(taken, name):
    (count, height, width, channels, filters, size), way = SHAPES[name]
    traced((count, height, width, channels), (size, size, channels, filters))
    assert taken == ([way] if way else [])


def test_a_group_is_left_to_tensorflow(taken, always):
    always("winograd")
    traced((8, 6, 6, 8), (3, 3, 4, 8))
    assert not taken


def test_where_the_number_of_images_is_unknown_tensorflows_way_is_taken(rng, taken, always):
    always("winograd")
    filters = tf.Variable(rng.normal(size=(3, 3, 4, 8)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 6, 4))])
    def gradient(images):
        with fast_conv_gradients():
            maps = tf.nn.conv2d(images, filters, 1, "SAME")
        return tf.gradients(maps, filters)[0]

    images = tf.constant(rng.normal(size=(8, 6, 6, 4)), tf.float32)
    found = gradient(images)
    assert not taken
    expected = conv_gradients.banded_filter_gradient(images, tf.ones((8, 6, 6, 8)), 3, 6)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_only_a_cpu_that_gains_is_of_use(monkeypatch):
    flags = {"old": "fma avx avx2 sse", "new": "avx2 avx512f avx512cd", "arm": "neon sve"}
    for name, use in {"old": True, "new": False, "arm": False}.items():
        text = f"flags\t\t: {flags[name]} \n"
        monkeypatch.setattr(conv_gradients.Path, "read_text", lambda path, text=text: text)
        assert conv_gradients.is_supported_processor() == use
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(conv_gradients.Path, "read_text", lambda path: " avx2 ")
    assert not conv_gradients.is_supported_processor()


@pytest.mark.parametrize("way", WAYS)
def test_a_network_is_trained_the_same_either_way(rng, taken, always, mirrored, monkeypatch, way):
    always(way)
    batch = {
        "images": tf.constant(rng.uniform(0, 255, (16, 10, 10, 3)), tf.float32),
        "labels": tf.constant(rng.integers(0, 5, 16), tf.int32),
        "weights": tf.constant(np.arange(16) < 13, tf.float32),
    }
    start = None
    trained = {}
    ways = {"plain": None, "fast": None, "mirrored": mirrored, "compiled": None}
    for name, strategy in ways.items():
        monkeypatch.setattr(
            conv_gradients, "is_supported_processor", lambda name=name: name != "plain"
        )
        before = len(taken)
        strategy = strategy or tf.distribute.get_strategy()
        with strategy.scope():
            inputs = keras.Input((10, 10, 3))
            x = keras.layers.Rescaling(1 / 255)(inputs)
            x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
            x = GroupedConv2D(8, 5, padding="same", groups=2, activation="relu")(x)
            x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
            model = keras.Model(inputs, keras.layers.Softmax(name="probabilities")(x))
            start = start or model.get_weights()
            model.set_weights(start)
            optimizer = SGD(0.1, momentum=0.9)
            steps = StepRunner(model, optimizer, strategy, jit_compile=name == "compiled")
        for _ in range(3):
            steps.train(batch, 13, 0.1)
        assert set(taken) <= {way}
        assert (len(taken) > before) == (name in ("fast", "mirrored"))
        trained[name] = model.get_weights()
    for name in ways:
        for one, other in zip(trained[name], trained["plain"], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("rows", [1, 2, 7, 9])
def test_bands_equal_the_sum_by_hand(rng, size, rows):
    images, output_gradient = rng.normal(size=(3, 7, 5, 2)), rng.normal(size=(3, 7, 5, 4))
    _, expected = both_gradients(images, np.zeros((size, size, 2, 4)), output_gradient)
    found = conv_gradients.banded_filter_gradient(
        tf.constant(images), tf.constant(output_gradient), size, rows
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("value", "used"), [("auto", True), ("framework", False)])
def test_the_environment_switches_the_fast_gradients_off(taken, always, monkeypatch, value, used):
    always("winograd")
    monkeypatch.setenv("CNNKIT_CONV_GRADIENTS", value)
    traced((8, 6, 6, 4), (3, 3, 4, 8))
    assert taken == ["winograd"] * used


def test_an_unknown_value_of_the_environment_variable_is_refused(monkeypatch):
    monkeypatch.setenv("CNNKIT_CONV_GRADIENTS", "fast")
    with pytest.raises(UsageError, match="CNNKIT_CONV_GRADIENTS must be `auto` or `framework`"):
        StepRunner(keras.Sequential(), SGD(0.1), tf.distribute.get_strategy())


def test_the_registered_gradient_changes_no_other_graph(taken, always):
    always("winograd")
    images, kernel = tf.ones((8, 6, 6, 4)), tf.ones((3, 3, 4, 8))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape, fast_conv_gradients():
            tape.watch(images)
            inside = tf.nn.conv2d(images, kernel, 1, "SAME")
        outside = tf.nn.conv2d(images, kernel, 1, "SAME")
        return tape.gradient(inside, images), tf.gradients(outside, images)

    gradients()
    assert not taken

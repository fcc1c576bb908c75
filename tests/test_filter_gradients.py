"""Filter gradients in bands against TensorFlow's own, and against the sum that they are."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.layers import GroupedConv2D
from cnnkit.training import SGD, filter_gradients
from cnnkit.training.filter_gradients import fast_filter_gradients, in_bands
from cnnkit.training.steps import Steps


@pytest.fixture
def bands(monkeypatch):
    """Makes any processor and any convolution one that gains; returns what was made in bands."""
    made = []

    def counted(images, signal, size, rows):
        made.append((images.shape, size, rows))
        return in_bands(images, signal, size, rows)

    monkeypatch.setattr(filter_gradients, "is_of_use", lambda: True)
    monkeypatch.setattr(filter_gradients, "_WORK", 0)
    monkeypatch.setattr(filter_gradients, "_IMAGES", 1)
    monkeypatch.setattr(filter_gradients, "in_bands", counted)
    return made


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
    found = in_bands(tf.constant(images), tf.constant(signal), size, rows)
    np.testing.assert_allclose(found, expected, atol=1e-12)


LAYERS = {
    "same": (keras.layers.Conv2D, {"padding": "same"}, True),
    "groups": (GroupedConv2D, {"padding": "same", "groups": 2}, True),
    "valid": (keras.layers.Conv2D, {}, False),
    "stride": (keras.layers.Conv2D, {"padding": "same", "strides": 2}, False),
    "dilation": (GroupedConv2D, {"padding": "same", "dilation_rate": 2, "groups": 2}, False),
    "even": (keras.layers.Conv2D, {"padding": "same", "kernel_size": 2}, False),
    "oblong": (keras.layers.Conv2D, {"padding": "same", "kernel_size": (3, 5)}, False),
    "float64": (keras.layers.Conv2D, {"padding": "same", "dtype": "float64"}, False),
    "bfloat16": (keras.layers.Conv2D, {"padding": "same", "dtype": "mixed_bfloat16"}, False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_convolution_keeps_its_gradients(rng, bands, name):
    make, options, fast = LAYERS[name]
    layer = make(**{"filters": 8, "kernel_size": 3, "activation": "relu", **options})
    images = tf.constant(rng.normal(size=(8, 9, 7, 4)), tf.float32)
    layer.build(images.shape)
    signal = rng.normal(size=layer.compute_output_shape(images.shape))
    weights = [variable.value for variable in layer.trainable_variables]

    @tf.function
    def gradients():
        with tf.GradientTape() as tape, fast_filter_gradients():
            tape.watch(images)
            total = tf.reduce_sum(layer(images) * tf.cast(signal, layer.compute_dtype))
        ways = [images, *weights]
        return tf.gradients(total, ways), tape.gradient(total, ways)

    found, expected = gradients()
    assert len(bands) == (layer.groups if fast else 0)
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(tf.cast(other, tf.float64)).max()
        np.testing.assert_allclose(
            tf.cast(one, tf.float64), tf.cast(other, tf.float64), atol=1e-5 * scale
        )


def test_where_the_number_of_images_is_unknown_tensorflows_way_is_taken(rng, bands):
    filters = tf.Variable(rng.normal(size=(3, 3, 4, 8)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 6, 4))])
    def gradient(images):
        with fast_filter_gradients():
            maps = tf.nn.conv2d(images, filters, 1, "SAME")
        return tf.gradients(maps, filters)[0]

    images = tf.constant(rng.normal(size=(8, 6, 6, 4)), tf.float32)
    expected = in_bands(images, tf.ones((8, 6, 6, 8)), 3, 6)
    np.testing.assert_allclose(gradient(images), expected, atol=1e-4)
    assert not bands


def test_only_a_cpu_that_gains_is_of_use(monkeypatch):
    flags = {"old": "fma avx avx2 sse", "new": "avx2 avx512f avx512cd", "arm": "neon sve"}
    for name, use in {"old": True, "new": False, "arm": False}.items():
        text = f"flags\t\t: {flags[name]} \n"
        monkeypatch.setattr(filter_gradients.Path, "read_text", lambda path, text=text: text)
        assert filter_gradients.is_of_use() == use
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(filter_gradients.Path, "read_text", lambda path: " avx2 ")
    assert not filter_gradients.is_of_use()


def test_a_network_is_trained_the_same_either_way(rng, bands, mirrored, monkeypatch):
    batch = {
        "images": tf.constant(rng.uniform(0, 255, (16, 10, 10, 3)), tf.float32),
        "labels": tf.constant(rng.integers(0, 5, 16), tf.int32),
        "weights": tf.constant(np.arange(16) < 13, tf.float32),
    }
    start = None
    trained = {}
    ways = {"plain": None, "fast": None, "mirrored": mirrored, "compiled": None}
    for name, strategy in ways.items():
        monkeypatch.setattr(filter_gradients, "is_of_use", lambda name=name: name != "plain")
        before = len(bands)
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
            steps = Steps(model, optimizer, strategy, jit_compile=name == "compiled")
        for _ in range(3):
            steps.train(batch, 13, 0.1)
        assert (len(bands) > before) == (name in ("fast", "mirrored"))
        trained[name] = model.get_weights()
    for name in ways:
        for one, other in zip(trained[name], trained["plain"], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)

"""The networks and layers on the Keras backend of KERAS_BACKEND, against TensorFlow's answers.

`make test-backends` runs this in environments without TensorFlow; CNNKIT_ANSWERS names the folder
that answers.py filled.
"""

import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cnnkit import alexnet, load_model
from cnnkit.layers import (
    CeilMaxPooling2D,
    GroupedConv2D,
    LocalResponseNormalization,
    ReLU,
    backward_rule,
)
from cnnkit.layers.max_pooling import IndexedMaxPooling2D, max_pooling

FOLDER = Path(os.environ["CNNKIT_ANSWERS"])
ANSWERS = dict(np.load(FOLDER / "answers.npz"))
NETWORKS = ("alexnet", "zfnet", "vgg11_lrn")


def gradient(function, x, signal=None):
    """The gradient of the sum of `signal * function(x)` on the backend that runs."""
    x = np.asarray(x, "float32")
    signal = 1.0 if signal is None else signal
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda v: (function(v) * signal).sum())(x))
    import torch

    tensor = torch.tensor(x, requires_grad=True)
    signal = torch.as_tensor(signal)
    (function(tensor) * signal).sum().backward()
    return tensor.grad.numpy()


def test_no_tensorflow_is_there():
    assert keras.backend.backend() == os.environ["KERAS_BACKEND"] != "tensorflow"
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradient(name):
    model = load_model(FOLDER / f"{name}.keras")
    logits = keras.ops.convert_to_numpy(model(ANSWERS["images"], training=False))
    expected = ANSWERS[f"{name}/logits"]
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    pixels = gradient(lambda x: model(x, training=False), ANSWERS["images"])
    expected = ANSWERS[f"{name}/gradient"]
    assert np.abs(pixels - expected).max() <= 1e-4 * np.abs(expected).max()


def test_weights_from_a_file():
    options = {"input_shape": (64, 64, 3), "classes": 4, "hidden_units": 64}
    file = FOLDER / "alexnet.keras"
    model = alexnet(weights=file, classifier_activation=None, **options)
    logits = keras.ops.convert_to_numpy(model(ANSWERS["images"], training=False))
    expected = ANSWERS["alexnet/logits"]
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_saving_and_a_training_step(name, tmp_path):
    model = load_model(FOLDER / f"{name}.keras")
    model.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    again.compile(keras.optimizers.SGD(1e-4), loss)
    assert np.isfinite(again.train_on_batch(ANSWERS["images"], np.array([0, 1])))
    assert any(
        (one != other).any()
        for one, other in zip(model.get_weights(), again.get_weights(), strict=True)
    )


@pytest.mark.parametrize("region", ["across", "within"])
def test_normalization_gradient(region):
    maps, signal = ANSWERS[f"lrn/{region}/maps"], ANSWERS[f"lrn/{region}/signal"]
    ours = gradient(LocalResponseNormalization(region=region), maps, signal)
    np.testing.assert_allclose(ours, ANSWERS[f"lrn/{region}/gradient"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("gradient", [0, -1, 0, -2]), ("deconvnet", [1, 0, 2, 0]), ("guided", [0, 0, 0, 0])],
)
def test_backward_rules(rule, expected):
    with backward_rule(rule):
        ours = gradient(ReLU(), [-1.0, 2.0, -3.0, 4.0], np.float32([1, -1, 2, -2]))
    np.testing.assert_array_equal(ours, expected)
    # Of every rule but that of gradients, normalization is no part.
    signal, x = np.float32([[[[1, -2, 3]]]]), np.float32([[[[1, 2, 3]]]])
    with backward_rule(rule):
        passed = gradient(LocalResponseNormalization(), x, signal)
    assert np.array_equal(passed, signal) == (rule != "gradient")


@pytest.mark.parametrize(
    ("size", "stride", "groups", "channels", "side"),
    [(11, 4, 1, 3, 63), (7, 2, 1, 3, 31), (5, 4, 1, 3, 24), (3, 3, 1, 5, 11), (2, 4, 1, 1, 9),
     (3, 1, 2, 4, 7), (3, 2, 4, 8, 9)],
)  # fmt: skip
def test_a_convolution_by_blocks_or_groups_is_that_of_keras(size, stride, groups, channels, side):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, side, side + 2, channels)).astype("float32")
    ours, plain = (
        kind(8, size, strides=stride, groups=groups)
        for kind in (GroupedConv2D, keras.layers.Conv2D)
    )
    expected = keras.ops.convert_to_numpy(plain(x))
    ours.build(x.shape)
    ours.set_weights(plain.get_weights())
    found = keras.ops.convert_to_numpy(ours(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    signal = rng.normal(size=expected.shape).astype("float32")
    np.testing.assert_allclose(
        gradient(ours, x, signal), gradient(plain, x, signal), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 2), ((3, 2), (2, 3)), (2, 3), (7, 4)])
def test_pooling_and_its_gradient_are_those_of_keras(size, stride):
    """With equal maxima, where the first of a window counts, and the signals of windows add up."""
    rng = np.random.default_rng(1)
    x = rng.integers(-2, 3, (2, 13, 14, 3)).astype("float32")
    ours, plain = (kind(size, stride) for kind in (IndexedMaxPooling2D, keras.layers.MaxPooling2D))
    expected = keras.ops.convert_to_numpy(plain(x))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours(x)), expected)
    signal = rng.normal(size=expected.shape).astype("float32")
    np.testing.assert_allclose(
        gradient(ours, x, signal), gradient(plain, x, signal), rtol=1e-6, atol=1e-6
    )
    assert np.isnan(keras.ops.convert_to_numpy(ours(x * np.float32("nan")))).all()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a form of the JAX backend")
def test_a_nan_is_the_maximum_of_its_windows_in_training_too():
    import jax

    x = np.zeros((1, 5, 5, 1), "float32")
    x[0, 3, 3] = np.nan  # the middle cell of the last window
    pooled, _ = jax.vjp(IndexedMaxPooling2D(3, 2), x)
    assert np.isnan(pooled)[0, ..., 0].tolist() == [[False, False], [False, True]]


def test_ceil_pooling_and_its_gradient_count_no_cell_beyond_the_map():
    x = -np.arange(1, 26, dtype="float32").reshape(1, 5, 5, 1)
    pooling = CeilMaxPooling2D(2, 2)
    largest = [[[[-1], [-3], [-5]], [[-11], [-13], [-15]], [[-21], [-23], [-25]]]]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(pooling(x)), largest)
    expected = np.isin(x, largest).astype("float32")
    np.testing.assert_array_equal(gradient(pooling, x), expected)


def test_a_network_built_here_is_the_one_of_the_file(tmp_path):
    """Its pooling is that of the backend; the file's is that of Keras."""
    options = {"input_shape": (64, 64, 3), "classes": 4, "hidden_units": 64}
    built = alexnet(
        weights=FOLDER / "alexnet.keras",
        classifier_activation=None,
        initializer="glorot",
        **options,
    )
    kind = IndexedMaxPooling2D if keras.backend.backend() == "jax" else keras.layers.MaxPooling2D
    assert type(built.get_layer("pool1")) is kind is type(max_pooling(3, 2, name="pool"))
    built.save(tmp_path / "built.keras")
    for model in (built, load_model(tmp_path / "built.keras")):
        assert type(model.get_layer("pool1")) is kind
        pixels = gradient(lambda x, model=model: model(x, training=False), ANSWERS["images"])
        expected = ANSWERS["alexnet/gradient"]
        assert np.abs(pixels - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_deconvnet_of_the_benchmark_is_that_of_the_package(monkeypatch):
    if keras.backend.backend() != "jax":
        pytest.skip("benchmarks/gpu.py measures JAX")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from keras_networks import jax_projections

    model = load_model(FOLDER / "alexnet.keras")
    forward, project = jax_projections(model, "conv5", ANSWERS["images"])
    assert forward().shape[1:] == model.get_layer("conv5").output.shape[1:]
    found, expected = np.asarray(project()), ANSWERS["deconvnet"]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()

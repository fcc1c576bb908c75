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
from cnnkit.layers import LocalResponseNormalization, ReLU, backward_rule

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

"""Caffe's networks for CIFAR-10 against NumPy, window by window as Caffe cuts them."""

import keras
import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models import build


def windows(x, reduce):
    """3 x 3 windows at step 2; the last overhangs, and what hangs over is no part of it."""
    side = -(-(x.shape[1] - 3) // 2) + 1
    rows = [
        [reduce(x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], axis=(1, 2)) for j in range(side)]
        for i in range(side)
    ]
    return np.stack([np.stack(row, 1) for row in rows], 1)


def convolution(x, kernel, bias):
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    return np.einsum("nhwcij,ijcf->nhwf", patches, kernel) + bias


def normalized(x):
    """Caffe's WITHIN_CHANNEL: 3 x 3 places, alpha 5e-5 divided by 9, beta 0.75."""
    padded = np.pad(x**2, ((0, 0), (1, 1), (1, 1), (0, 0)))
    sums = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).sum((-1, -2))
    return x / (1 + 5e-5 / 9 * sums) ** 0.75


@pytest.mark.parametrize("name", ["cifar10_full", "cifar10_quick"])
def test_the_forward_pass_by_hand(name, rng):
    model = build(name, mean=(120.0, 110.0, 100.0), classifier_activation=None)
    # Weights large enough that the normalization shows.
    for layer in model.layers:
        layer.set_weights([rng.normal(size=w.shape) * 0.2 for w in layer.get_weights()])
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    images = rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    full = name == "cifar10_full"
    norm = normalized if full else (lambda x: x)
    x = images.astype("float64") - [120, 110, 100]
    x = norm(np.maximum(windows(convolution(x, *weights["conv1"]), np.max), 0))
    x = norm(windows(np.maximum(convolution(x, *weights["conv2"]), 0), np.mean))
    x = windows(np.maximum(convolution(x, *weights["conv3"]), 0), np.mean)
    x = x.reshape(2, -1)
    for dense in ("fc4",) if full else ("fc4", "fc5"):
        kernel, bias = weights[dense]
        x = x @ kernel + bias
    np.testing.assert_allclose(model(images), x, rtol=1e-3, atol=1e-3 * np.abs(x).max())


def test_first_weights_are_caffes():
    model = build("cifar10_quick")
    deviations = {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "fc4": 0.1, "fc5": 0.1}
    for name, deviation in deviations.items():
        kernel, bias = model.get_layer(name).get_weights()
        assert kernel.std() == pytest.approx(deviation, rel=0.1)
        assert not bias.any()


def test_first_weights_of_the_full_network_are_caffes():
    model = build("cifar10_full")
    for name, deviation in {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "fc4": 0.01}.items():
        kernel, bias = model.get_layer(name).get_weights()
        assert kernel.std() == pytest.approx(deviation, rel=0.1)
        assert not bias.any()


def test_sides_that_do_not_halve_are_refused():
    assert build("cifar10_full", input_shape=(8, 16, 3)).output_shape == (None, 10)
    with pytest.raises(UsageError, match="divisible by 8. Received: 36 x 36"):
        build("cifar10_full", input_shape=(36, 36, 3))
    with pytest.raises(UsageError, match="too small for cifar10_full"):
        build("cifar10_full", input_shape=(4, 4, 3))


def test_compile_and_fit_train_a_network(tmp_path):
    """Keras's loop, its callbacks and its files know the layers of this package."""
    images = np.zeros((48, 32, 32, 3), np.float32)
    labels = np.arange(48) % 2
    images[labels == 1, :, 16:] = 255
    model = build("cifar10_full", classes=2, initializer="glorot")
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "sparse_categorical_crossentropy")
    stopping = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=2)
    history = model.fit(
        images, labels, epochs=20, batch_size=16, verbose=0, callbacks=[stopping]
    ).history["loss"]
    assert len(history) == 3
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded(images[:2], training=False).numpy(), model(images[:2], training=False).numpy()
    )
    assert loaded.optimizer.iterations == 9

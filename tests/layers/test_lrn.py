"""Local response normalization against its formula, TensorFlow's gradient and differences."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.layers import LocalResponseNormalization, lrn
from tests.helpers.layer_contract import check_layer


def lrn_by_hand(x, size, alpha, beta, k, region):
    """The formula of the paper for one unit at a time."""
    y = np.empty_like(x, dtype=np.float64)
    half = size // 2
    for n, r, c, i in np.ndindex(*x.shape):
        if region == "across":
            window = x[n, r, c, max(0, i - half) : i + half + 1]
        else:
            window = x[n, max(0, r - half) : r + half + 1, max(0, c - half) : c + half + 1, i]
        y[n, r, c, i] = x[n, r, c, i] / (k + alpha * np.sum(window.astype(float) ** 2)) ** beta
    return y


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("region", ["across", "within"])
@pytest.mark.parametrize(("size", "beta"), [(5, 0.75), (3, 0.5), (1, 0.75)])
def test_lrn_equals_the_formula(rng, region, size, beta, training):
    x = rng.normal(0, 50, (2, 4, 5, 9)).astype("float32")
    y = LocalResponseNormalization(size, 1e-3, beta, 2.0, region=region)(x, training=training)
    np.testing.assert_allclose(y, lrn_by_hand(x, size, 1e-3, beta, 2.0, region), rtol=2e-5)


# (size, k, alpha): value for all-ones input at an inner channel, the next to last, the last.
@pytest.mark.parametrize(
    ("k", "alpha", "expected"),
    [
        (2.0, 1e-4, (0.5944920937, 0.5945143826, 0.5945366734)),
        (2.0, 2e-5, (0.5945812608, None, None)),
        (1.0, 2e-5, (0.9999250066, None, None)),
    ],
)
def test_lrn_on_ones(k, alpha, expected):
    y = LocalResponseNormalization(alpha=alpha, k=k)(np.ones((1, 1, 1, 9), "float32"))
    for channel, value in zip((4, 7, 8), expected, strict=True):
        if value is not None:
            assert float(y[0, 0, 0, channel]) == pytest.approx(value, rel=1e-6)


def test_lrn_mean_convention_divides_alpha_by_the_window(rng):
    x = rng.normal(0, 100, (1, 5, 5, 8)).astype("float32")
    for region, cells in (("across", 5), ("within", 25)):
        mean = LocalResponseNormalization(alpha=1e-4, alpha_convention="mean", region=region)
        plain = LocalResponseNormalization(alpha=1e-4 / cells, region=region)
        np.testing.assert_allclose(mean(x), plain(x), rtol=1e-6)


def test_lrn_gradient_equals_tensorflows(rng, mirrored):
    x = tf.constant(rng.normal(0, 60, (3, 6, 7, 12)), tf.float32)
    signal = tf.constant(rng.normal(size=x.shape), tf.float32)
    layer = LocalResponseNormalization()

    def gradient(normalize):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = normalize(x)
        return tape.gradient(y, x, signal)

    expected = gradient(lambda v: tf.nn.local_response_normalization(v, 2, 2.0, 1e-4, 0.75))
    trained = partial(gradient, partial(layer, training=True))
    on_replicas = tf.function(lambda: mirrored.run(trained))()
    found = [gradient(layer), trained(), *mirrored.experimental_local_results(on_replicas)]
    assert len(found) == 4
    for value in found:
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_lrn_within_gradient_equals_finite_differences(rng):
    layer = LocalResponseNormalization(3, 1e-2, 0.75, 1.0, region="within")
    x = rng.normal(0, 3, (1, 4, 4, 2)).astype("float32")
    signal = rng.normal(size=x.shape)
    with tf.GradientTape() as tape:
        tensor = tf.constant(x)
        tape.watch(tensor)
        y = layer(tensor)
    gradient = tape.gradient(y, tensor, tf.constant(signal, tf.float32)).numpy()
    for index in [(0, 0, 0, 0), (0, 1, 2, 1), (0, 3, 3, 0)]:
        step = np.zeros_like(x)
        step[index] = 1e-2
        ends = [lrn_by_hand(x + s, 3, 1e-2, 0.75, 1.0, "within") for s in (step, -step)]
        assert gradient[index] == pytest.approx(np.sum((ends[0] - ends[1]) * signal) / 2e-2, 1e-3)


def test_many_channels_are_summed_without_a_matrix(rng, monkeypatch):
    x = rng.normal(0, 50, (1, 2, 3, 9)).astype("float32")
    expected = lrn_by_hand(x, 5, 1e-3, 0.75, 2.0, "across")
    for most in (9, 8):
        monkeypatch.setattr(lrn, "MAX_BAND_CHANNELS", most)
        y = LocalResponseNormalization(5, 1e-3)(x)
        np.testing.assert_allclose(y, expected, rtol=2e-5)


@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize("region", ["across", "within"])
def test_both_forms_of_the_gradient_are_equal(rng, beta, region):
    """One of them takes the output of the forward pass, the other computes it anew."""
    functions = lrn.LRNFunctions(3, 1e-2, beta, 2.0, region)
    x, dy = (tf.constant(rng.normal(0, 5, (1, 3, 4, 6)), tf.float32) for _ in range(2))
    y, d = functions.forward(x)
    np.testing.assert_allclose(
        functions.gradient(x, dy), functions.backward(x, y, d, dy), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("options", [{"size": 1}, {"size": 1001}, {"alpha": 0}, {"k": 1e-30}])
def test_constants_at_their_limits_are_taken(options):
    assert LocalResponseNormalization(**options).get_config().items() >= options.items()


def test_lrn_survives_activities_whose_squares_leave_float16():
    layer = LocalResponseNormalization(dtype="mixed_float16")
    y = layer(tf.fill((1, 1, 1, 5), tf.constant(300.0, tf.float16)))
    assert float(y[0, 0, 0, 2]) == pytest.approx(300 / (2 + 45) ** 0.75, rel=1e-2)


def test_a_trained_lrn_is_exported_without_xla(rng, tmp_path):
    """Not every server has XLA, and XLA would compile for each new number of images."""
    inputs = keras.Input((4, 4, 8))
    x = LocalResponseNormalization()(keras.layers.Conv2D(8, 1)(inputs))
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    model.compile("sgd", "mse")
    images = rng.normal(size=(6, 4, 4, 8)).astype("float32")
    model.fit(images, rng.normal(size=(6, 128)), epochs=1, verbose=0)
    model.export(tmp_path / "model", verbose=False)
    saved = (tmp_path / "model" / "saved_model.pb").read_bytes()
    assert b"XlaMustCompile\x12\x02(\x01" not in saved
    assert b"Rsqrt" in saved
    loaded = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_allclose(
        loaded.serve(images[:5]), model.predict(images[:5], verbose=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "shape", "scale"),
    [
        (LocalResponseNormalization, (2, 5, 6, 8), 30.0),
        (
            lambda **k: LocalResponseNormalization(3, 5e-5, k=1.0, region="within", **k),
            (2, 5, 6, 8),
            30.0,
        ),
    ],
    ids=["across", "within"],
)
def test_contract(make, shape, scale, rng, tmp_path):
    inputs = rng.normal(0, scale, shape).astype("float32")
    outputs = check_layer(make, inputs, tmp_path)
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 4}, "an odd size from 1 to 1001. Received: 4"),
        ({"size": 1003}, "an odd size from 1 to 1001. Received: 1003"),
        ({"size": -1}, "an odd size from 1 to 1001. Received: -1"),
        ({"k": 0}, "k > 0 and alpha >= 0. Received: 0 and"),
        ({"alpha": -1e-9}, "k > 0 and alpha >= 0. Received: 2.0 and -1e-09"),
        ({"alpha_convention": "maen"}, "Did you mean mean?"),
        ({"region": "accross"}, "Did you mean across?"),
    ],
)
def test_wrong_normalization_is_refused(options, text):
    with pytest.raises(UsageError, match=text.replace("?", r"\?")):
        LocalResponseNormalization(**options)

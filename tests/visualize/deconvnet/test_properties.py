"""Properties of every deconvnet, whatever its weights."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit.layers import CeilMaxPooling2D, ReLU
from cnnkit.visualize import backward_steps, deconvnet, forward_steps


@pytest.fixture(scope="module")
def images():
    images = np.random.default_rng(0).uniform(0, 1, (2, 14, 17, 3)).astype("float32")
    images[1, 2:9, 3:10] = 0.5
    return images


def net(positive=False, pooled=False, bias=-0.05):
    keras.utils.set_random_seed(11)
    inputs = keras.Input((14, 17, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="a")(inputs)
    x = layers.MaxPooling2D(3, 2, name="pool_a")(x)
    if not pooled:
        x = layers.Conv2D(6, 3, padding="same", activation=ReLU(), name="b")(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="c")(x)
    model = keras.Model(inputs, CeilMaxPooling2D(2, 2, name="pool_c")(x))
    model.set_weights(
        [(np.abs(w) if positive else w) if w.ndim > 1 else np.full_like(w, bias)
         for w in model.get_weights()]
    )  # fmt: skip
    return model


def project(model, images, layer, rule, unit=1):
    return np.stack([r.projection for r in deconvnet(model, images, layer, unit, rule=rule)])


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_projections_scale_with_the_signal(images, rule):
    steps = forward_steps(net(), images, "c")
    signal = np.zeros_like(steps[-1].output)
    signal[:, 2, 3, 1] = 1
    once, fourfold = (backward_steps(steps, signal * factor, rule) for factor in (1, 4))
    np.testing.assert_array_equal(fourfold, 4 * once)
    if rule != "gradient":
        # A negative signal is rectified at once.
        assert not backward_steps(steps, -signal, rule).any()


def test_without_negative_weights_the_rules_are_ordered(images):
    model = net(positive=True)
    deconv, guided, gradient = (
        project(model, images, "pool_c", rule) for rule in ("deconvnet", "guided", "gradient")
    )
    np.testing.assert_array_equal(guided, gradient)
    assert (deconv >= guided).all()
    assert (guided >= 0).all()
    assert guided.any()


def test_pixels_are_not_rectified(images):
    for rule in ("deconvnet", "guided"):
        projection = project(net(), images, "pool_c", rule, unit=None)
        assert projection.min() < -0.1 * projection.max() < 0


def test_below_a_pooling_the_rules_differ_in_dead_windows_only(images):
    # Both rules rectify; the forward mask of guided differs where all of a window was dead.
    model = net(pooled=True)
    steps = forward_steps(model, images, "c")
    pool = next(step for step in steps if step.layer == "pool_a")
    assert 0 < (pool.output == 0).mean() < 0.9
    signal = np.zeros_like(steps[-1].output)
    signal[:, 2, 3, 1] = 1
    above, below = steps[steps.index(pool) + 1 :], steps[: steps.index(pool) + 1]
    at_pool = backward_steps(above, signal)
    deconv, guided = backward_steps(below, at_pool), backward_steps(below, at_pool, "guided")
    assert np.abs(deconv - guided).max() > 1e-3
    alive = np.where(pool.output > 0, at_pool, 0)
    np.testing.assert_allclose(backward_steps(below, alive), guided, atol=1e-7)


@pytest.mark.parametrize(
    ("layer", "side", "first"),
    [
        (CeilMaxPooling2D(3, 2), 4, 2),
        # By two positions, of which Keras's "same" would put one in front.
        (CeilMaxPooling2D(4, 4), 6, 4),
        (layers.MaxPooling2D(3, 2, "same"), 4, 2),
    ],
)
def test_a_dead_window_over_the_edge_keeps_its_signal(layer, side, first):
    # The last windows of a negative map overhang; zeros outside must not win.
    inputs = keras.Input((side, side, 1))
    model = keras.Model(inputs, keras.layers.Identity(name="top")(layer(inputs)))
    image = np.full((side, side, 1), -2.0)
    [result] = deconvnet(model, image, "top", 0, (1, 1))
    assert np.argwhere(result.projection).tolist() == [[first, first, 0]]
    assert result.projection.sum() == 1
    assert result.activation == -2
    steps = forward_steps(model, image[None], layer.name)
    signal = np.zeros_like(steps[-1].output)
    signal[0, 1, 1] = 1
    np.testing.assert_array_equal(backward_steps(steps, signal)[0], result.projection)


def test_flat_units_are_counted_row_by_row(images):
    # Unit (row * width + column) * channels + channel of a flattened map is the unit at that place.
    model = net()
    flat = keras.Model(model.input, layers.Flatten(name="flat")(model.output))
    rows, columns, channels = model.output.shape[1:]
    assert rows != columns
    [as_map] = deconvnet(model, images[0], "pool_c", 2, (1, 3))
    [as_vector] = deconvnet(flat, images[0], "flat", (1 * columns + 3) * channels + 2)
    np.testing.assert_array_equal(as_map.projection, as_vector.projection)
    assert as_map.activation == as_vector.activation


def test_a_loaded_model_gives_the_same_projection(images, tmp_path):
    model = net()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for rule in ("deconvnet", "guided", "gradient"):
        np.testing.assert_array_equal(
            project(model, images, "c", rule), project(loaded, images, "c", rule)
        )

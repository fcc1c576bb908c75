"""Class activation maps against their formulas in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit.visualize import gradcam, gradcam_plus_plus, scorecam
from tests.visualize.attribution.networks import (
    CAMS,
    NETWORKS,
    SHAPE,
    reference_values,
    target_logits,
)


@pytest.mark.parametrize("label", [None, 1])
def test_gradcam_equals_the_formula(example_model, images, label):
    model = example_model
    tape, _, maps, logits = reference_values(model, images)
    with tape:
        targets, scores = target_logits(logits, label)
    gradients = tape.gradient(scores, maps).numpy()
    found = gradcam(model, images, label, batch_size=2)
    for one, target, gradient, values in zip(found, targets, gradients, maps.numpy(), strict=True):
        assert (one.target, one.layer, one.method) == (target, "conv2", "gradcam")
        weights = gradient.mean(axis=(0, 1))
        expected = np.maximum((values * weights).sum(axis=2), 0)
        np.testing.assert_allclose(one.grid, expected, rtol=1e-4, atol=1e-6 * expected.max())
    assert any(one.grid.any() for one in found)


def test_gradcam_plus_plus_equals_the_formula(example_model, images):
    model = example_model
    tape, _, maps, logits = reference_values(model, images)
    with tape:
        _, scores = target_logits(logits)
    gradients = tape.gradient(scores, maps).numpy().astype(float)
    found = gradcam_plus_plus(model, images)
    for one, g, values in zip(found, gradients, maps.numpy().astype(float), strict=True):
        weights = np.zeros(values.shape[2])
        for k in range(len(weights)):
            denominator = 2 * g[..., k] ** 2 + g[..., k] ** 3 * values[..., k].sum()
            alpha = np.divide(
                g[..., k] ** 2, denominator, out=np.zeros_like(denominator), where=g[..., k] != 0
            )
            if alpha.sum() != 0:
                alpha /= alpha.sum()
            weights[k] = (alpha * np.maximum(g[..., k], 0)).sum()
        expected = np.maximum((values * weights).sum(axis=2), 0)
        np.testing.assert_allclose(one.grid, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_gradcam_plus_plus_of_large_logits(images):
    keras.utils.set_random_seed(4)
    model = NETWORKS["logits"]()
    kernel, bias = model.get_layer("logits").get_weights()
    expected = gradcam_plus_plus(model, images, 1)
    model.get_layer("logits").set_weights([kernel, bias + 1000])
    for one, other in zip(gradcam_plus_plus(model, images, 1), expected, strict=True):
        # exp(1000) overflows.
        assert one.score > 900
        np.testing.assert_allclose(one.grid, other.grid, rtol=1e-4)


def test_scorecam_equals_the_formula(example_model, images):
    model = example_model
    logits = reference_values(model, images)[3]
    by_sigmoid = "sigmoid" in str(getattr(model.layers[-1], "activation", None))
    targets = logits.numpy().argmax(1)
    maps = reference_values(model, images)[2].numpy()
    for one, target, image, values in zip(
        scorecam(model, images, batch_size=4), targets, images, maps, strict=True
    ):
        expected = 0
        for k in range(values.shape[2]):
            mask = interpolated(values[..., k], SHAPE[:2])
            if np.ptp(mask) > 0:
                mask = (mask - mask.min()) / np.ptp(mask)
            masked = (image * mask[..., None]).astype("float32")
            answer = reference_values(model, masked[None])[3].numpy()[0].astype(float)
            probability = np.exp(answer - answer.max())
            probability = probability[target] / probability.sum()
            if by_sigmoid:
                probability = 1 / (1 + np.exp(-answer[target]))
            expected = expected + probability * values[..., k]
        np.testing.assert_allclose(one.grid, np.maximum(expected, 0), rtol=1e-4)


def interpolated(values, size):
    """Interpolates linearly, with the first and last values on the first and last pixels."""
    for axis, (have, want) in enumerate(zip(values.shape, size, strict=True)):
        places = np.linspace(0, have - 1, want)
        values = np.apply_along_axis(
            lambda v, places=places: np.interp(places, np.arange(len(v)), v), axis, values
        )
    return values


@pytest.mark.parametrize("cam", CAMS)
def test_maps_of_other_layers(images, cam):
    keras.utils.set_random_seed(4)
    model = NETWORKS["ours"]()
    for layer, grid in (("conv1", (18, 24)), ("norm1", (18, 24)), ("pool2", (4, 6))):
        [one] = cam(model, images[0], layer=layer)
        assert (one.layer, one.grid.shape, one.map.shape) == (layer, grid, SHAPE[:2])


def test_grid_values_lie_at_the_centers_of_receptive_fields(images):
    keras.utils.set_random_seed(4)
    [one] = gradcam(NETWORKS["ours"](), images[0], 3)
    grid = one.grid
    assert grid.shape == (9, 12)
    # Position i of pool1, and so of conv2, depends on 4 pixels from 2 i on: center 2 i + 1.5.
    for row, column in ((5, 8), (9, 22), (12, 3)):
        r, c = (row - 1.5) / 2, (column - 1.5) / 2
        i, j = int(r), int(c)
        v, u = r - i, c - j
        by_hand = (1 - v) * ((1 - u) * grid[i, j] + u * grid[i, j + 1]) + v * (
            (1 - u) * grid[i + 1, j] + u * grid[i + 1, j + 1]
        )
        assert one.map[row, column] == pytest.approx(by_hand, rel=1e-5)
    # No extrapolation beyond the centers.
    assert one.map[0, 0] == grid[0, 0]
    assert one.map[-1, -1] == pytest.approx(grid[-1, -1], rel=1e-6)


def test_grid_values_are_spaced_evenly_without_known_receptive_fields(images):
    keras.utils.set_random_seed(4)
    inputs = keras.Input(SHAPE)
    x = layers.DepthwiseConv2D(2, strides=2, name="depth")(inputs)
    x = layers.Conv2D(3, 1, activation="relu", name="conv")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    [one] = gradcam(model, images[0], 0)
    assert one.grid.shape == (10, 13)
    assert one.map[0, 0] == pytest.approx(one.grid[0, 0])
    expected = 0.75 * one.grid[3] + 0.25 * one.grid[4]
    assert one.map[7, 0] == pytest.approx(expected[0], rel=1e-5)

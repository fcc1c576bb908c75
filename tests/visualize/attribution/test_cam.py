"""Class activation maps against their formulas in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit.errors import UsageError
from cnnkit.visualize import compare_attributions, gradcam, gradcam_plus_plus, occlusion, scorecam
from cnnkit.visualize.attribution import cam as maps_module
from cnnkit.visualize.attribution.cam import _cubic_matrix
from cnnkit.visualize.attribution.sanity_check import rank_correlation
from tests.helpers.interpolation import interpolated
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
    found = gradcam(model, images, label, "conv2", batch_size=2)
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
    found = gradcam_plus_plus(model, images, layer="conv2")
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
        scorecam(model, images, layer="conv2", batch_size=4), targets, images, maps, strict=True
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
    # Position i of pool1, and so of conv2, depends on 4 pixels from 2 i on: center 2 i + 1.5. That
    # is one pixel more than TensorFlow's, which has other weights at the edges.
    by_tensorflow = tf.raw_ops.ResizeBicubic(
        images=grid[None, ..., None], size=[18, 24], half_pixel_centers=True
    )[0, ..., 0]
    assert grid.max() > 0
    shown = one.map[1:19, 1:25][4:-4, 4:-4]
    expected = np.maximum(by_tensorflow, 0)[4:-4, 4:-4]
    np.testing.assert_allclose(shown, expected, atol=1e-5 * grid.max())
    # No extrapolation beyond the centers.
    assert one.map[0, 0] == grid[0, 0]
    assert one.map[-1, -1] == pytest.approx(grid[-1, -1], rel=1e-6)


def test_a_cubic_passes_through_its_values_and_has_no_kinks():
    """Keys' cubic is exact for parabolas, and its slope beside a value is that of its neighbors."""
    places = np.linspace(1, 7, 601)
    matrix = _cubic_matrix(places, 9)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    np.testing.assert_allclose(matrix @ (np.arange(9.0) - 3) ** 2, (places - 3) ** 2, atol=1e-9)
    peak = matrix @ (np.arange(9) == 4)
    assert peak.min() < -0.06 and peak.max() == 1
    # A line between the values would have a jump of 2 in its slope at the peak.
    assert np.abs(np.diff(np.gradient(peak, places))).max() < 0.06
    assert _cubic_matrix(np.array([-3.0, 20.0]), 9) @ np.arange(9) == pytest.approx([0, 8])


def test_a_map_is_not_negative_beside_a_high_value(images, monkeypatch):
    keras.utils.set_random_seed(4)
    made = []
    enlarge = maps_module._upsampling_matrices
    monkeypatch.setattr(
        maps_module, "_upsampling_matrices", lambda *args: made.append(enlarge(*args)) or made[-1]
    )
    [one] = gradcam(NETWORKS["ours"](), images[0], 3)
    [(rows, columns)] = made
    cubic = rows @ one.grid @ columns.T
    assert cubic.min() < -0.01 * cubic.max()
    np.testing.assert_allclose(one.map, np.maximum(cubic, 0), atol=1e-6 * cubic.max())


def test_grid_values_are_spaced_evenly_without_known_receptive_fields(images):
    keras.utils.set_random_seed(4)
    inputs = keras.Input(SHAPE)
    x = layers.DepthwiseConv2D(2, strides=2, name="depth")(inputs)
    x = layers.Conv2D(3, 1, activation="relu", name="conv")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    [one] = gradcam(model, images[0], 0)
    assert one.grid.shape == (10, 13)
    assert one.map[0, 0] == pytest.approx(one.grid[0, 0])
    # A quarter of the way from row 3 to row 4.
    weights = np.array([-0.0703125, 0.8671875, 0.2265625, -0.0234375])
    expected = np.maximum(weights @ one.grid[2:6], 0)
    assert one.map[7, 0] == pytest.approx(expected[0], rel=1e-5)


# Networks and the last maps on the way to their classes.


def classes(x):
    return layers.Dense(3, "softmax", name="top")(x)


def averaged(x):
    return classes(layers.GlobalAveragePooling2D()(x))


def normalized(x):
    x = layers.Conv2D(4, 3, name="conv", use_bias=False)(x)
    x = layers.BatchNormalization(name="norm")(x)
    return averaged(layers.ReLU(name="relu")(x))


def xception(x):
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="entry")(x)
    shortcut = layers.Conv2D(12, 3, strides=2, padding="same", name="shortcut")(x)
    x = layers.SeparableConv2D(12, 3, padding="same", name="separable1", use_bias=False)(x)
    x = layers.MaxPooling2D(3, 2, padding="same")(layers.BatchNormalization()(x))
    x = layers.Add(name="sum")([x, layers.BatchNormalization()(shortcut)])
    x = layers.SeparableConv2D(12, 3, padding="same", name="separable2", use_bias=False)(x)
    return averaged(layers.Activation("relu", name="exit")(layers.BatchNormalization()(x)))


def separable(x):
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(4, 3, activation="relu", name="separable")(x)
    x = layers.Dropout(0.5, name="drop")(layers.MaxPooling2D(2)(x))
    return classes(layers.Flatten()(x))


def residual(x):
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(layers.ReLU()(x)))
    return averaged(layers.Add(name="sum")([layers.Conv2D(4, 1, name="shortcut")(x), y]))


def gated(x):
    """Squeeze and excitation: a path around the maps, through their mean."""
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    gate = layers.Dense(4, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return averaged(layers.Multiply(name="gated")([x, gate]))


def two_poolings(x):
    """The same maps by their mean and their maximum."""
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    both = [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    return classes(layers.Concatenate()(both))


def fully_convolutional(x):
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = layers.Conv2D(8, (18, 24), activation="relu", name="fc6")(
        layers.SpatialDropout2D(0.5, name="drop")(x)
    )
    return layers.Softmax()(layers.Flatten()(layers.Conv2D(3, 1, name="fc7")(x)))


def average_of_logits(x):
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = layers.Dense(3, name="logits")(x)
    return layers.Softmax()(layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize(
    ("network", "expected", "pooled"),
    [
        (normalized, "relu", "relu"),
        (xception, "exit", "exit"),
        (separable, "separable", "drop"),
        (residual, "sum", "sum"),
        (gated, "gated", "gated"),
        (two_poolings, "conv", "conv"),
        (fully_convolutional, "conv", "drop"),
        (average_of_logits, "logits", "logits"),
    ],
)
def test_the_default_maps_are_the_last_ones(images, network, expected, pooled):
    keras.utils.set_random_seed(4)
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, network(layers.Rescaling(1 / 255)(inputs)))
    outer = keras.Input(SHAPE)
    for one in (model, keras.Model(outer, model(outer))):
        assert gradcam(one, images[0])[0].layer == expected
    # The recorded maps may be those of the final pooling.
    assert occlusion(model, images[0], 9, 9).layer == pooled
    assert compare_attributions(model, images[0], ["gradcam"], down_to=[]).layer == expected


def test_maps_side_by_side_must_be_chosen(images):
    inputs = keras.Input(SHAPE)
    branches = [
        layers.GlobalAveragePooling2D()(layers.Conv2D(2, size, name=f"by{size}")(inputs))
        for size in (3, 5)
    ]
    model = keras.Model(inputs, classes(layers.Concatenate()(branches)))
    with pytest.raises(UsageError, match="`layer` must be given: .* one of by5, by3"):
        gradcam(model, images)
    assert gradcam(model, images[0], layer="by5")[0].layer == "by5"


@pytest.fixture(scope="module")
def blobs():
    """Images of noise with one blob each, and its color as the class; the truth of a map."""
    random = np.random.default_rng(0)
    images = random.uniform(60, 120, (96, 32, 32, 3)).astype("float32")
    labels = np.arange(96) % 3
    for image, label in zip(images, labels, strict=True):
        row, column = random.integers(0, 24, 2)
        image[row : row + 8, column : column + 8, label] = 250
    return images, labels


@pytest.mark.parametrize("network", [xception, normalized, residual])
def test_the_default_maps_agree_with_brute_force_occlusion(blobs, network):
    """Covering the places that are high in the map costs the class most.

    The shortcut of the residual network, its last plain convolution, has a correlation of 0.27.
    """
    images, labels = blobs
    keras.utils.set_random_seed(1)
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, network(layers.Rescaling(1 / 128, -1)(inputs)))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            # The statistics must be known after few steps.
            layer.momentum = 0.8
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(images, labels, batch_size=32, epochs=12, verbose=0)
    assert (model(images[:12], training=False).numpy().argmax(1) == labels[:12]).mean() > 0.9
    agreements = []
    for image, label in zip(images[:6], labels[:6], strict=True):
        covered = np.tile(image, (13, 13, 1, 1, 1))
        for i, j in np.ndindex(13, 13):
            covered[i, j, 2 * i : 2 * i + 8, 2 * j : 2 * j + 8] = 90
        outputs = model(covered.reshape(-1, 32, 32, 3), training=False).numpy()
        drop = -np.log(outputs[:, label] + 1e-9).reshape(13, 13)
        # At the centers of the squares.
        seen = gradcam(model, image, int(label))[0].map[4:29:2, 4:29:2]
        agreements.append(rank_correlation(drop - drop.min(), seen))
    assert np.mean(agreements) > 0.45

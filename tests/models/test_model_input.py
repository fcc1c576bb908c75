"""What models do to their pixels, measured, against the arithmetic by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit import vgg11
from cnnkit.errors import AssumptionWarning
from cnnkit.layers import SubtractMean
from cnnkit.models.model_input import (
    expected_input,
    gray_level,
    input_range,
    measure_preprocessing,
    name_layers,
    outside_of,
    pixel_range,
)
from cnnkit.models.preprocessing import PRESETS, Preprocessing, compose

IMAGES = np.random.default_rng(3).uniform(0, 255, (2, 8, 8, 3)).astype("float32")


def with_convolution(*before, side=8, channels=3):
    inputs = keras.Input((side, side, channels))
    x = inputs
    for layer in before:
        x = layer(x)
    return keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(x))


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([layers.Rescaling(1 / 255)], (0, 255)),
        ([layers.Rescaling(1 / 127.5, offset=-1)], (0, 255)),
        ([layers.Rescaling(2.0, offset=-1)], (0, 1)),
        ([layers.Rescaling(127.5, offset=127.5)], (-1, 1)),
        ([layers.Normalization(mean=[120, 110, 100], variance=[3000, 3000, 3000])], (0, 255)),
        ([layers.Normalization(mean=[0.5, 0.4, 0.4], variance=[0.07, 0.07, 0.07])], (0, 1)),
        ([lambda x: x / 255.0], (0, 255)),
        ([keras.applications.vgg16.preprocess_input], (0, 255)),
        ([keras.applications.resnet_v2.preprocess_input], (0, 255)),
        ([keras.applications.densenet.preprocess_input], (0, 255)),
        ([layers.RandomFlip(), layers.RandomBrightness(0.3), layers.Rescaling(1 / 255)], (0, 255)),
        ([layers.ZeroPadding2D(1), layers.Rescaling(1 / 255)], (0, 255)),
        ([keras.Sequential([layers.Rescaling(1 / 255)])], (0, 255)),
        ([SubtractMean((0, 0, 0))], (0, 255)),
        ([], None),
        ([layers.ZeroPadding2D(1)], None),
        ([layers.BatchNormalization()], None),
        ([lambda x: x[..., ::-1]], None),
        ([lambda x: keras.ops.sqrt(x)], None),
    ],
)
def test_range_of_the_pixels(before, expected):
    assert input_range(with_convolution(*before)) == (
        expected and pytest.approx(expected, abs=1e-3)
    )


def test_inner_models_and_other_inputs():
    inner = with_convolution(layers.Rescaling(1 / 255))
    assert input_range(keras.Sequential([keras.Input((8, 8, 3)), inner])) == (0, 255)
    assert input_range(with_convolution(layers.Rescaling(1 / 255), channels=1)) == (0, 255)
    assert input_range(vgg11(input_shape=(32, 32, 3), classes=2)) == (0, 255)
    assert input_range(vgg11(include_top=False, include_preprocessing=False)) is None
    flat = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)])
    assert input_range(flat) is None
    dense = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2)]
    )
    assert input_range(dense) == (0, 255)
    # The shortcut takes the pixels as they are, so that nothing is known of them.
    inputs = keras.Input((8, 8, 3))
    both = [layers.Conv2D(2, 1)(inputs), layers.Conv2D(2, 1)(layers.Rescaling(1 / 255)(inputs))]
    assert expected_input(keras.Model(inputs, layers.add(both))) is None


@pytest.mark.parametrize(
    ("module", "preset"), [("vgg16", "caffe"), ("xception", "tf"), ("densenet", "torch")]
)
def test_measured_equals_the_preset(module, preset):
    function = getattr(keras.applications, module).preprocess_input
    found = measure_preprocessing(lambda x: function(np.array(x)), (8, 8, 3))
    assert found.channels == PRESETS[preset].channels
    np.testing.assert_allclose(found.mean, PRESETS[preset].mean, rtol=1e-4)
    expected = PRESETS[preset].std or (1, 1, 1)
    np.testing.assert_allclose(found.std or (1, 1, 1), expected, rtol=1e-4)


@pytest.mark.parametrize("outside", sorted(PRESETS))
@pytest.mark.parametrize("inside", sorted(PRESETS))
def test_composition(outside, inside):
    def apply(preset, x):
        std = 1 if preset.std is None else preset.std
        x = (x - np.asarray(preset.mean)) / std
        return x[..., ::-1] if preset.channels == "BGR" else x

    expected = apply(PRESETS[inside], apply(PRESETS[outside], IMAGES.astype(float)))
    found = apply(compose(PRESETS[outside], PRESETS[inside]), IMAGES.astype(float))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        # As large as bytes, or divided by as much: pixels of 0..255.
        ((104, 117, 124), None, "raw"),
        ((1.6, 0, 0), None, "raw"),
        ((0, 0, 0), (8, 9, 10), "raw"),
        ((-2, 0, 0), None, None),
        # Of pixels of 0..1.
        ((1.5, 0, 0), (0.2, 0.2, 0.2), "unit"),
        ((0.4, 0.5, 0.6), None, "unit"),
        ((0, 0, 0), (0.9, 0.9, 0.9), "unit"),
        # Of pixels of -1..1.
        ((-1, -1, -1), (0.01, 0.01, 0.01), "tf"),
        ((-1, -0.9, -1), None, None),
        # Nothing is told.
        ((0, 0, 0), (1, 1, 1), None),
        ((0, 0, 0), None, None),
        ((0, 0, 0), (7, 9, 9), None),
    ],
)
def test_what_a_network_does_inside_tells_the_pixels_it_takes(mean, std, expected):
    found = outside_of(Preprocessing(mean, std), "layer 'x'")
    if expected is None:
        assert found.is_assumed
        assert found.reason == "layer 'x' does not tell the range of the images"
        return
    assert found == PRESETS[expected].said_by_file("layer 'x'")


@pytest.mark.parametrize(
    ("least", "largest", "gray"), [(-0.5, 0.5, 0), (0, 1, 0.5), (0, 1.1, 128), (0, 255, 128)]
)
def test_gray_is_the_middle_of_the_range_of_the_images(least, largest, gray):
    images = np.linspace(least, largest, 12, dtype="float32").reshape(1, 2, 2, 3)
    assert gray_level(with_convolution(), images) == gray
    # What the network tells counts.
    unit = with_convolution(layers.Rescaling(2.0, offset=-1))
    assert gray_level(unit, images) == pytest.approx(0.5)
    assert gray_level(with_convolution(layers.Rescaling(1 / 255)), images) == 128


def test_a_range_that_is_not_told_is_taken_as_bytes_with_a_warning():
    with pytest.warns(AssumptionWarning, match="do not tell the range .* taken as 0..255") as said:
        # The warning names the caller of the function that asks.
        assert (lambda: pixel_range(with_convolution()))() == (0, 255)
    assert said[0].filename == __file__
    assert pixel_range(with_convolution(layers.Rescaling(2.0, offset=-1))) == (0, 1)


def test_layers_are_named():
    assert name_layers(["a"]) == "layer 'a'"
    assert name_layers(["a", "b"]) == "layers 'a', 'b'"

"""Activation maximization of a detector built by hand, whose best stimulus is known."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit.errors import DataError, UsageError
from cnnkit.layers import ClassProbabilities
from cnnkit.visualize import activation_maximization

SIZE = 16


@pytest.fixture(scope="module")
def detector():
    """conv detects a bright row under a dark one, and red without green; pixels are 0..255."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(3, 5, padding="same", activation="relu", name="conv")(x)
    y = layers.Flatten()(layers.MaxPooling2D(2, name="pool")(x))
    probabilities = ClassProbabilities(name="probabilities", class_names=("row", "red"))
    model = keras.Model(inputs, probabilities(layers.Dense(2, name="logits")(y)))
    kernel = np.zeros((5, 5, 3, 3))
    kernel[1, :, :, 0], kernel[3, :, :, 0] = -1, 1
    kernel[2, 2, 0, 1], kernel[2, 2, 1, 1] = 1, -1
    # Far below zero for noise: a ReLU would have no gradient.
    model.get_layer("conv").set_weights([kernel, np.array([-3.0, 0, -1e3])])
    top = np.zeros((8, 8, 3, 2))
    top[2, 5, 1, 1] = 1
    model.get_layer("logits").set_weights([top.reshape(-1, 2), np.zeros(2)])
    return model


def test_the_pattern_appears_at_the_requested_position(detector, rng):
    options = {"steps": 60, "smoothness": 0.01, "jitter": 0}
    row, red = activation_maximization(detector, "conv", [0, 1], position=(6, 9), **options)
    assert (row.position, row.layer, row.unit, red.unit) == ((6, 9), "conv", 0, 1)
    # The maximum: 5 pixels of 3 colors at 1, as many at 0, and the bias.
    assert row.activation == pytest.approx(15 - 3, abs=0.2)
    assert red.activation == pytest.approx(1, abs=0.05)
    noise = rng.uniform(0, 255, (500, SIZE, SIZE, 3)).astype("float32")
    maps = keras.Model(detector.input, detector.get_layer("conv").output)(noise).numpy()
    assert row.activation > 2 * maps[:, 6, 9, 0].max()
    image = row.image
    assert image.shape == (SIZE, SIZE, 3)
    assert image[7, 7:12].min() > 240
    assert image[5, 7:12].max() < 15
    assert red.image[6, 9, 0] > 240
    assert red.image[6, 9, 1] < 15
    # Noise outside of the receptive field is only smoothed.
    assert np.abs(image[10:] - 127.5).max() < 40
    assert image.min() >= 0
    assert image.max() <= 255


def test_the_default_position_is_the_center(detector):
    [made] = activation_maximization(detector, "pool", 1, steps=2)
    assert made.position == (4, 4)


def test_jitter_is_undone(detector):
    [made] = activation_maximization(
        detector, "conv", 0, position=(6, 9), steps=60, jitter=1, smoothness=0.01
    )
    # The activation is that of the returned image.
    maps = keras.Model(detector.input, detector.get_layer("conv").output)(made.image[None])
    assert made.activation == pytest.approx(float(maps[0, 6, 9, 0]), rel=1e-5)
    assert made.activation > 3
    # After one step of a unit with a receptive field of 5 x 5, the other pixels are still noise.
    [made] = activation_maximization(
        detector, "conv", 0, position=(6, 9), steps=1, jitter=4, smoothness=0, seed=1
    )
    noise = np.random.default_rng(1).normal(127.5, 255 / 50, (SIZE, SIZE, 3))
    changed = (np.abs(made.image - noise) > 1e-3).any(axis=2)
    assert 0 < changed.sum() <= 25
    # The jitter determines which of them the unit saw.
    assert changed[4:9, 7:12].sum() != changed.sum()


def test_every_step_starts_from_pixels_within_the_range():
    """Red above the range of pixels would activate a unit that depends on green as well."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(2, 1, activation="relu", name="pair")(inputs)
    model = keras.Model(inputs, layers.Conv2D(1, 1, name="sum")(x))
    pair = np.array([[1, 1], [0, -1], [0, 0]], "float32").reshape(1, 1, 3, 2)
    model.get_layer("pair").set_weights([pair, np.array([0, -300])])
    model.get_layer("sum").set_weights([np.array([1, 2]).reshape(1, 1, 2, 1), np.zeros(1)])
    options = {"smoothness": 0, "jitter": 0}
    # The first step is one of 30 times the rate: from 128 to above 428.
    [made] = activation_maximization(model, "sum", 0, steps=4, rate=12, **options)
    [after_one] = activation_maximization(model, "sum", 0, steps=1, rate=12, **options)
    assert made.image[3, 3, 0] == after_one.image[3, 3, 0] == 255
    assert made.image[3, 3, 1] == after_one.image[3, 3, 1] > 100


def test_classes_by_their_logits_and_names(detector):
    [red] = activation_maximization(detector, unit="red", steps=60, jitter=0, smoothness=0)
    assert (red.layer, red.unit, red.position) == ("probabilities", 1, ())
    assert red.activation == pytest.approx(1, abs=0.05)
    with pytest.raises(DataError, match="Unit 0 of probabilities has no gradient.*another seed"):
        activation_maximization(detector, unit="row")
    with pytest.raises(UsageError, match="Unknown class 'rod'"):
        activation_maximization(detector, unit="rod")


def test_the_image_depends_on_the_seed_only(detector):
    state = np.random.get_state()[1].copy()
    one, same, other = (
        activation_maximization(detector, "conv", 1, steps=3, seed=s)[0].image for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_models_that_take_images_of_any_size():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="c")(inputs))
    with pytest.raises(
        UsageError, match="`image_size` is required: model .* takes images of any size"
    ):
        activation_maximization(model, "c")
    [made] = activation_maximization(model, "c", steps=2, image_size=(9, 12), input_range=(-1, 1))
    assert made.image.shape == (9, 12, 3)
    assert np.abs(made.image).max() <= 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layer": "cnv"}, "Unknown layer 'cnv'.*Did you mean conv"),
        ({"layer": "conv", "unit": 3}, "'conv' has no unit 3. Expected: 0 to 2"),
        ({"layer": "conv", "unit": "row"}, "'conv' has no unit row"),
        (
            {"layer": "conv", "position": (16, 0)},
            "`position` must lie in the feature map.*within 16 x 16",
        ),
        ({"unit": 0, "position": (1, 1)}, "`position` must lie in the feature map.*a dense layer"),
        ({"steps": 0}, "`steps` is out of its range"),
        ({"rate": 0}, "`rate` is out of its range"),
        ({"smoothness": -1}, "`smoothness` is out of its range"),
        ({"jitter": -1}, "`jitter` is out of its range"),
        ({"input_range": (1, 1)}, "`input_range` is out of its range"),
        (
            {"image_size": 12},
            "`image_size` must be the input size of model .* Expected: 16 x 16. Received: 12 x 12",
        ),
    ],
)
def test_invalid_arguments(detector, options, text):
    with pytest.raises(UsageError, match=text):
        activation_maximization(detector, **options)

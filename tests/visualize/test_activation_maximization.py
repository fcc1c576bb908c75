"""Activation maximization of a detector built by hand, whose best stimulus is known."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy import ndimage

from cnnkit.cli.main import main
from cnnkit.cli.read_image import read_image
from cnnkit.errors import DataError, UsageError
from cnnkit.layers import ClassProbabilities
from cnnkit.models import build, open_weights
from cnnkit.visualize import activation_maximization
from cnnkit.visualize.activation_maximization import _fourier_image, _Transformations

pytestmark = pytest.mark.usefixtures("unoptimized")

SIZE = 16
# No random transformations.
FIXED = {"jitter": 0, "rotation": 0, "scaling": 0}


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
    options = {"steps": 300, **FIXED}
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
    assert image.min() >= 0
    assert image.max() <= 255


def test_the_default_position_is_the_center(detector):
    [made] = activation_maximization(detector, "pool", 1, steps=2)
    assert made.position == (4, 4)


def test_the_activation_is_that_of_the_returned_image(detector):
    [made] = activation_maximization(detector, "conv", 0, position=(6, 9), steps=60)
    maps = keras.Model(detector.input, detector.get_layer("conv").output)(made.image[None])
    assert made.activation == pytest.approx(float(maps[0, 6, 9, 0]), rel=1e-5)
    assert made.activation > 3 > made.start


@pytest.mark.parametrize("shape", [(8, 12, 3), (7, 9, 1)])
def test_the_image_is_the_inverse_fourier_transform_in_imagenets_colors(shape, rng):
    """NumPy's transform, and the covariance of ImageNet's colors that Lucid publishes."""
    height, width, channels = shape
    size, to_image = _fourier_image(shape, (-1.0, 3.0))
    assert size == (2, channels, height, width // 2 + 1)
    given = rng.normal(0, 0.3, size)
    image = to_image(tf.constant(given, tf.float32)).numpy()[0]
    logits = -np.log(4 / (image + 1) - 1)
    planes = np.empty(shape)
    for channel in range(channels):
        spectrum = given[0, channel] + 1j * given[1, channel]
        for row in range(height):
            for column in range(width // 2 + 1):
                vertical, horizontal = min(row, height - row) / height, column / width
                frequency = max(np.sqrt(vertical**2 + horizontal**2), 1 / max(height, width))
                spectrum[row, column] *= np.sqrt(height * width) / frequency / 4
        planes[:, :, channel] = np.fft.irfft2(spectrum, (height, width))
    if channels == 3:
        # Standard deviations of the decorrelated colors, as Lucid rounds them.
        lucid = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
        covariance = lucid @ lucid.T
        mix, *_ = np.linalg.lstsq(planes.reshape(-1, 3), logits.reshape(-1, 3), rcond=None)
        np.testing.assert_allclose(planes @ mix, logits, rtol=1e-4, atol=1e-5)
        measured = mix.T @ mix
        np.testing.assert_allclose(
            measured / np.trace(measured), covariance / np.trace(covariance), atol=0.01
        )
    else:
        np.testing.assert_allclose(planes, logits, rtol=1e-4, atol=1e-5)


class _Fixed:
    """A generator of the largest or the smallest number."""

    def __init__(self, largest):
        self.largest = largest

    def uniform(self, low, high, count):
        return np.full(count, high if self.largest else low)

    def integers(self, low, high, shape):
        return np.full(shape, high - 1 if self.largest else low)


@pytest.mark.parametrize("largest", [True, False])
def test_transformations_are_those_of_scipy(largest, rng):
    """A rotation by 30 degrees, a size of 1.25 or 0.75, a shift of 2 pixels, about the center."""
    image = ndimage.gaussian_filter(rng.uniform(0, 255, (21, 25)), 2)
    [matrix] = _Transformations(2, 30, 0.25).sample(_Fixed(largest), 1, image.shape)
    given = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None, :, :, None], transforms=matrix, output_shape=image.shape,
        fill_value=0.0, interpolation="BILINEAR", fill_mode="REFLECT",
    )[0, :, :, 0]  # fmt: skip
    sign = 1 if largest else -1
    size, angle = 1 + sign * 0.25, np.deg2rad(sign * 30)
    inverse = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / size
    center = (np.array(image.shape) - 1) / 2
    offset = center - inverse @ center + sign * 2
    expected = ndimage.affine_transform(image, inverse, offset, order=1, mode="reflect")
    np.testing.assert_allclose(given, expected, atol=1e-3)


def test_the_start_is_noise_of_the_seed_and_variation_costs_its_weight(detector):
    """Each weight gives the best of the images for the unit less the variation per value."""
    weights, made = (0.0, 0.1, 0.7), []
    for weight in weights:
        made += activation_maximization(
            detector, "conv", 0, position=(6, 9), steps=40, smoothness=weight, seed=5, **FIXED
        )
    shape, to_image = _fourier_image((SIZE, SIZE, 3), (0.0, 255.0))
    noise = np.random.default_rng(5).normal(0, 0.01, shape)
    gray = to_image(tf.constant(noise, tf.float32))
    maps = keras.Model(detector.input, detector.get_layer("conv").input)(gray).numpy()
    kernel = detector.get_layer("conv").get_weights()[0][..., 0]
    assert made[0].start == pytest.approx((maps[0, 4:9, 7:12] * kernel).sum() - 3, abs=1e-4)
    assert {one.start for one in made} == {made[0].start}
    steps = [np.abs(np.diff(one.image, axis=axis)).sum() for one in made for axis in (0, 1)]
    variation = np.reshape(steps, (3, 2)).sum(axis=1) / (SIZE * SIZE * 3)
    values = np.array([one.activation for one in made]) - np.outer(weights, variation)
    assert values.argmax(axis=1).tolist() == [0, 1, 2]


def test_limits_of_the_options_are_allowed(detector, monkeypatch):
    made = []
    module = importlib.import_module("cnnkit.visualize.activation_maximization")
    original = module._Transformations
    monkeypatch.setattr(
        module, "_Transformations", lambda *args: made.append(args) or original(*args)
    )
    limits = {"steps": 1, "rotation": 180, "smoothness": 0, "jitter": 0, "scaling": 0}
    activation_maximization(detector, "conv", 1, **limits)
    # One pixel of jitter for 28 of the shorter side, as 8 of 224.
    any_size = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(1, 3, name="c")])
    activation_maximization(any_size, "c", steps=1, image_size=(60, 90), input_range=(0, 1))
    assert made == [(0, 180, 0), (2, 5.0, 0.05)]


def test_values_in_rows_are_no_units():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layers.Reshape((16, 3), name="rows")(inputs))
    with pytest.raises(UsageError, match=r"'rows' has no units.* Received: \(16, 3\)"):
        activation_maximization(model, "rows")


def test_an_image_under_shifts_excites_its_unit_wherever_it_lies(detector):
    """Unit 1 is red minus green of one pixel: shifts of 3 pixels spread its stimulus."""
    shifts = {"jitter": 3, "rotation": 0, "scaling": 0}
    spread, fixed = (
        activation_maximization(detector, "conv", 1, position=(8, 8), steps=200, **options)[0].image
        for options in (shifts, FIXED)
    )
    weakest = [(one[5:12, 5:12, 0] - one[5:12, 5:12, 1]).min() for one in (spread, fixed)]
    assert weakest[0] > 100 > weakest[1] + 50


def test_a_unit_that_did_not_fire_is_reported(tmp_path, capsys):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3, activation="relu", name="conv")(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(model.output))
    kernel = np.ones((3, 3, 3, 2), "float32") / 27
    # The largest mean of a window is 255.
    model.get_layer("conv").set_weights([kernel, np.array([-200, -300])])
    fires, silent = activation_maximization(model, "conv", [0, 1], steps=200, **FIXED)
    assert fires.fires and 0 < fires.activation <= 55
    assert not silent.fires and silent.start < silent.activation <= -45
    model.save(tmp_path / "m.keras")
    arguments = ["visualize", "activation-maximization", f"{tmp_path}/m.keras", "--layer", "conv"]
    arguments += ["--preprocessing", "raw"]
    assert main([*arguments, "--unit", "0", "1", "--output", f"{tmp_path}/made.png"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("it did not fire") == 1
    assert "unit 1: " in printed.split("it did not fire")[0].rsplit(";")[-1]


def test_classes_by_their_logits_and_names(detector):
    [red] = activation_maximization(detector, unit="red", steps=300, **FIXED)
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
        ({"rotation": 181}, "`rotation` is out of its range"),
        ({"scaling": 1}, "`scaling` is out of its range"),
        ({"input_range": (1, 1)}, "`input_range` is out of its range"),
        ({"input_range": (-np.inf, 1)}, "`input_range` is out of its range"),
        ({"input_range": (0, np.inf)}, "`input_range` is out of its range"),
        ({"rate": np.inf}, "`rate` is out of its range"),
        ({"smoothness": np.inf}, "`smoothness` is out of its range"),
        ({"rotation": -1}, "`rotation` is out of its range"),
        ({"scaling": -0.1}, "`scaling` is out of its range"),
        ({"image_size": (16, 12)}, "Expected: 16 x 16, or nothing. Received: 16 x 12"),
        (
            {"image_size": 12},
            "`image_size` must be left out .* Expected: 16 x 16, or nothing. Received: 12 x 12",
        ),
    ],
)
def test_invalid_arguments(detector, options, text):
    with pytest.raises(UsageError, match=text):
        activation_maximization(detector, **options)


@pytest.mark.slow
def test_units_of_a_trained_alexnet_are_excited_more_than_by_photographs(shared):
    weights = open_weights(shared("data/alexnet_bvlc_conv.npz"))
    model = build("alexnet_caffe", weights=weights, include_top=False, input_shape=(227, 227, 3))
    units = [40, 120, 172]
    made = activation_maximization(model, "conv5", units)
    maps = keras.Model(model.input, model.get_layer("conv5").output)
    photos = [read_image(str(path), 227) for path in sorted(shared("data/photos").iterdir())]
    strongest = maps(np.stack(photos)).numpy()[..., units].max((0, 1, 2))
    for one, photo in zip(made, strongest, strict=True):
        assert one.fires
        assert one.activation > 3 * photo

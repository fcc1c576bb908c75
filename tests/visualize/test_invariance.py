"""Invariance in a model built by hand, whose curves are known."""

import json

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from cnnkit.cli.main import main
from cnnkit.errors import DataError, UsageError
from cnnkit.visualize import invariance, transform_image
from cnnkit.visualize.invariance import transform_amounts
from tests.visualize.networks import SIZE, corner, corner_detector

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture(scope="module")
def detector():
    return corner_detector()


def test_the_translation_curve_is_the_one_computed_by_hand(detector):
    """The features of a corner that moves down, and then out of the image."""
    found = invariance(detector, corner(8, 4), "translation", amounts=[-8, -2, 0, 1, 2, 5, 6],
                       layers=["conv1", "any"], labels=[0], fill=0)  # fmt: skip
    # conv1 has a one for the row and one for the column, which move together; from 5 on
    # the column leaves the image, and its detector no longer fires.
    # Rows 9 to 11 of the column moved by 5 are 14 to 16: two pixels are no column.
    np.testing.assert_allclose(found.distances[0, 0], np.sqrt([4, 4, 0, 4, 4, 3, 3]), rtol=1e-6)
    np.testing.assert_allclose(found.distances[1, 0], [0, 0, 0, 0, 0, 1, 1], atol=1e-7)
    there = np.exp(2) / (np.exp(2) + 1)
    np.testing.assert_allclose(found.probabilities[0], [there] * 5 + [0.5] * 2, rtol=1e-6)
    np.testing.assert_allclose(found.norms[:, 0], [np.sqrt(2), 1], rtol=1e-6)
    # The probability of a class that is not the most probable one.
    other = invariance(detector, corner(8, 4), "translation", amounts=[0, 6], layers=["any"],
                       labels=[1], fill=0)  # fmt: skip
    np.testing.assert_allclose(other.probabilities[0], [1 - there, 0.5], rtol=1e-5)
    # Every image has its own class.
    both = np.stack([corner(8, 4), corner(3, 9)])
    two = invariance(detector, both, "translation", amounts=[0], labels=[1, 0], fill=0)
    np.testing.assert_allclose(two.probabilities, [[1 - there], [there]], rtol=1e-5)
    assert two.labels.tolist() == [1, 0]


def test_the_rotation_curve_is_the_one_computed_by_hand(detector):
    found = invariance(detector, corner(8, 4), "rotation", amounts=[0, 90, 180, 270, 360], fill=0)
    assert found.layers == ("conv1", "conv2")
    # After a quarter or a half turn the pattern is not detected.
    np.testing.assert_allclose(found.distances[1, 0], [0, 1, 1, 1, 0], atol=1e-6)
    # After a half turn the bars are detected elsewhere.
    np.testing.assert_allclose(found.distances[0, 0] ** 2, [0, 2, 4, 2, 0], atol=1e-5)
    assert found.labels.tolist() == [0]


def test_transformations_by_whole_pixels_are_exact(rng):
    image = rng.uniform(0, 255, (7, 9, 3)).astype("float32")
    down = transform_image(image, "translation", 3, fill=5)
    np.testing.assert_array_equal(down[3:], image[:-3])
    assert (down[:3] == 5).all()
    np.testing.assert_allclose(
        transform_image(image, "rotation", 180), image[::-1, ::-1], rtol=1e-6
    )
    square = image[:, :7]
    np.testing.assert_allclose(transform_image(square, "rotation", 90), np.rot90(square), rtol=1e-6)
    for transform, nothing in (("translation", 0), ("scale", 1), ("rotation", 0)):
        np.testing.assert_array_equal(transform_image(image, transform, nothing), image)
    # A ramp from the center, twice as large, rises half as fast.
    ramp = np.tile(np.arange(9.0)[:, None, None], (1, 9, 1))
    expected = 4 + (np.arange(9) - 4) / 2
    np.testing.assert_allclose(transform_image(ramp, "scale", 2)[:, 4, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("side", "expected"),
    # 60 of 224 pixels in 24 steps, and in whole pixels at other sizes.
    [(224, range(-60, 61, 5)), (100, range(-26, 27, 2)), (16, range(-4, 5))],
)
def test_translations_are_those_of_the_paper_in_proportion(side, expected):
    assert transform_amounts("translation", side).tolist() == list(expected)


def test_scales_and_rotations_are_those_of_the_paper():
    scales = transform_amounts("scale", 224)
    assert (scales[0], scales[-1], len(scales)) == (1, 1.8, 17)
    assert transform_amounts("rotation", 224).tolist() == list(range(0, 360, 10))
    with pytest.raises(UsageError, match="Unknown transformation 'scales'. .*Did you mean scale"):
        transform_amounts("scales", 224)


def test_what_comes_in_from_outside_is_gray():
    image = np.zeros((3, 3, 1))
    assert transform_image(image, "translation", 1)[0, 0, 0] == 128
    with pytest.raises(UsageError, match="Unknown transformation 'skew'"):
        transform_image(image, "skew", 1)
    with pytest.raises(UsageError, match="`amount` of a scale must be above 0. Received: -1"):
        transform_image(image, "scale", -1)


def test_the_gray_is_that_of_the_model():
    """The mean of a white image that moves down by 1 of 4 rows, for pixels in 0..255."""
    inputs = keras.Input((4, 4, 3))
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="top")(x))
    white = np.full((1, 4, 4, 3), 255.0)
    for fill, expected in ((None, 127 / 255 / 4), (0, 1 / 4)):
        found = invariance(model, white, "translation", amounts=[1], layers=["mean"], fill=fill)
        np.testing.assert_allclose(found.distances.ravel(), [expected * np.sqrt(3)], rtol=1e-5)


def test_features_that_are_not_finite_are_named(detector):
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(1, 1, name="one")(inputs)
    x = layers.Conv2D(1, 1, activation="tanh", name="two")(layers.Rescaling(3e38, name="huge")(x))
    end = layers.Dense(2, name="top")(layers.Flatten()(x))
    model = keras.Model(inputs, end)
    with pytest.raises(DataError, match="'huge' has values for image 1 that are not finite"):
        invariance(model, np.stack([np.zeros((4, 4, 3)), np.full((4, 4, 3), 99.0)]), "rotation",
                   layers=["one", "huge"], fill=0)  # fmt: skip
    alone = keras.Model(inputs, layers.Dense(2, name="top")(layers.Flatten()(inputs)), name="alone")
    with pytest.raises(UsageError, match="Model 'alone' has only one layer with weights"):
        invariance(alone, np.zeros((4, 4, 3)), "rotation")


def test_batches_do_not_matter(detector, rng):
    images = rng.uniform(0, 1, (2, SIZE, SIZE, 3))
    for transform in ("translation", "scale", "rotation"):
        one, other = (invariance(detector, images, transform, batch_size=size) for size in (3, 50))
        np.testing.assert_allclose(one.distances, other.distances, atol=1e-5)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
        assert one.distances.shape == (2, 2, len(one.amounts))


def test_invalid_arguments(detector):
    image = corner(3, 4)
    for options, text in (
        ({"transform": "turn"}, "Unknown transformation 'turn'"),
        ({"transform": "scale", "amounts": [0]}, "`amount` of a scale must be above 0"),
        ({"transform": "scale", "labels": [2]}, "has no class 2. Expected: 0 to 1"),
        ({"transform": "scale", "labels": []}, "`labels` must hold one class for every image"),
        ({"transform": "scale", "layers": ["conv3"]}, "Unknown layer 'conv3'"),
    ):
        with pytest.raises(UsageError, match=text):
            invariance(detector, image, **options)
    headless = keras.Model(detector.input, detector.get_layer("pool2").output)
    with pytest.raises(UsageError, match="is not a classifier"):
        invariance(headless, image, "scale")
    with pytest.raises(UsageError, match="`images` must have the shape of the model.s input"):
        invariance(detector, image[:8], "scale")
    broken = keras.models.clone_model(detector)
    kernel, bias = detector.get_layer("conv2").get_weights()
    broken.set_weights(detector.get_weights())
    broken.get_layer("conv2").set_weights([kernel, bias * np.nan])
    with pytest.raises(DataError, match="'conv2' has weights that are not finite"):
        invariance(broken, image, "scale")


def test_invariance_command(detector, tmp_path, capsys):
    # Files hold 0..255: the pixels are scaled before the detector.
    inputs = keras.Input((SIZE, SIZE, 3))
    keras.Model(inputs, detector(layers.Rescaling(1 / 255)(inputs))).save(tmp_path / "m.keras")
    for name, place in (("a.png", (8, 4)), ("b.png", (3, 9))):
        keras.utils.save_img(tmp_path / name, 255 * corner(*place), scale=False)
    files, picture = [str(tmp_path / name) for name in ("a.png", "b.png")], tmp_path / "seen.png"
    command = ["visualize", "invariance", str(tmp_path / "m.keras"), *files, "--fill", "0",
               "--layer", "conv1", "any", "--output", str(picture)]  # fmt: skip
    assert main([*command, "--transform", "translation", "rotation", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads((tmp_path / "seen.png.json").read_text())
    assert facts["classes"] == ["0", "0"]
    assert list(facts["transforms"]) == ["translation", "rotation"]
    arrays = np.load(f"{picture}.npz")
    # By 4 of 16 pixels at most: the upper corner's row leaves the image, the other one stays.
    amounts = arrays["translation_amounts"]
    assert amounts.tolist() == list(range(-4, 5))
    distances = arrays["translation_distances"][1]
    np.testing.assert_allclose(distances, [[0] * 9, [1] + [0] * 8], atol=1e-6)
    assert facts["transforms"]["translation"]["probabilities"][1][0] == pytest.approx(0.5)
    # Two rows of four panels, none of them blank.
    pixels = matplotlib.image.imread(picture)[..., :3]
    for panel in (p for row in np.array_split(pixels, 2) for p in np.array_split(row, 4, axis=1)):
        assert np.ptp(panel, axis=(0, 1)).min() > 0.5
    picture.unlink()
    for more, said in (
        (["--target", "0", "cat"], "Unknown class 'cat'"),
        (["--target", "0"], "--target must name one class for each image. Expected: 2 classes"),
        (["--transform", "turn"], "--transform must be one of translation, scale, rotation"),
        (["--layer", "conv9"], "Unknown layer 'conv9'"),
    ):
        assert main([*command, *more, "--overwrite"]) == 2
        assert said in capsys.readouterr().err
        assert not picture.exists()

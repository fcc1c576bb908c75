"""Networks built by hand for a pattern that is known: what is seen in them is known too."""

import json

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from cnnkit.cli.main import main
from cnnkit.errors import DataError, UsageError
from cnnkit.visualize import deconvnet, find_top_activations, invariance, top9, transform_image

# A corner: three red pixels in a row, and below the last of them three green ones.
SIZE = 16


def corner(row, column):
    image = np.zeros((SIZE, SIZE, 3), "float32")
    image[row, column : column + 3, 0] = 1
    image[row + 1 : row + 4, column + 2, 1] = 1
    return image


@pytest.fixture(scope="module")
def detector():
    """conv1 finds red rows and green columns, conv2 a row whose end a column begins below."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(2, 3, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.Conv2D(1, 5, padding="same", activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(4, 4, name="pool2")(x)
    x = layers.GlobalMaxPooling2D(name="any")(x)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", name="top")(x))
    bars = np.zeros((3, 3, 3, 2))
    bars[1, :, 0, 0] = 1
    bars[:, 1, 1, 1] = 1
    # Only all three pixels of a bar are more than 2.
    model.get_layer("conv1").set_weights([bars, np.array([-2.0, -2.0])])
    pair = np.zeros((5, 5, 2, 1))
    # From the middle of the row: the middle of the column is 2 below and 1 to the right.
    pair[2, 2, 0, 0] = pair[4, 3, 1, 0] = 1
    model.get_layer("conv2").set_weights([pair, np.array([-1.0])])
    model.get_layer("top").set_weights([np.array([[2.0, 0.0]]), np.zeros(2)])
    return model


@pytest.mark.parametrize("place", [(3, 4), (8, 2), (0, 0)])
@pytest.mark.parametrize("layer", ["conv2", "pool2", "any", "top"])
def test_the_projection_is_the_pattern_at_its_place(detector, place, layer):
    image = corner(*place)
    [seen] = deconvnet(detector, image, layer, unit=0)
    factor = 2 if layer == "top" else 1
    np.testing.assert_array_equal(seen.projection, factor * image)
    assert seen.activation == factor * 1
    if layer == "conv2":
        assert seen.position == (place[0], place[1] + 1)


def test_the_image_with_the_pattern_is_the_strongest(detector):
    images = np.zeros((5, SIZE, SIZE, 3), "float32")
    images[1, 5, 3:9, 0] = 1  # red alone
    images[2, 5:9, 3, 1] = 1  # green alone
    images[3] = corner(9, 7)
    # A unit that fires for one image has one projection, not nine of noise.
    [top] = top9(detector, images, ["conv2"])["conv2"]
    assert [one.image for one in top.projections] == [3]
    np.testing.assert_array_equal(top.projections[0].projection, images[3])
    without = np.delete(images, 3, axis=0)
    assert find_top_activations(detector, without, ["conv2"])["conv2"].dead.all()


def test_the_curve_of_a_translation_is_that_of_the_hand(detector):
    """Rows of 3 pixels that move apart: of six ones, none but those still on others agree."""
    found = invariance(detector, corner(8, 4), "translation", amounts=[-8, -2, 0, 1, 2, 5, 6],
                       layers=["conv1", "any"], labels=[0], fill=0)  # fmt: skip
    # conv1 has a one for the row and one for the column, which go their way together; from 5 on
    # the column leaves the image, and of its detector nothing is left.
    # Rows 9 to 11 of the column moved by 5 are 14 to 16: two pixels are no column.
    np.testing.assert_allclose(found.distances[0, 0], np.sqrt([4, 4, 0, 4, 4, 3, 3]), rtol=1e-6)
    np.testing.assert_allclose(found.distances[1, 0], [0, 0, 0, 0, 0, 1, 1], atol=1e-7)
    there = np.exp(2) / (np.exp(2) + 1)
    np.testing.assert_allclose(found.probabilities[0], [there] * 5 + [0.5] * 2, rtol=1e-6)
    np.testing.assert_allclose(found.norms[:, 0], [np.sqrt(2), 1], rtol=1e-6)
    # Of a class that is not the most probable one, its own probability.
    other = invariance(detector, corner(8, 4), "translation", amounts=[0, 6], layers=["any"],
                       labels=[1], fill=0)  # fmt: skip
    np.testing.assert_allclose(other.probabilities[0], [1 - there, 0.5], rtol=1e-5)
    # Of every image that of its own class.
    both = np.stack([corner(8, 4), corner(3, 9)])
    two = invariance(detector, both, "translation", amounts=[0], labels=[1, 0], fill=0)
    np.testing.assert_allclose(two.probabilities, [[1 - there], [there]], rtol=1e-5)
    assert two.labels.tolist() == [1, 0]


def test_the_curve_of_a_rotation_is_that_of_the_hand(detector):
    found = invariance(detector, corner(8, 4), "rotation", amounts=[0, 90, 180, 270, 360], fill=0)
    assert found.layers == ("conv1", "conv2")
    # A quarter turn makes the red row a column, which is no pattern; nor is it upside down.
    np.testing.assert_allclose(found.distances[1, 0], [0, 1, 1, 1, 0], atol=1e-6)
    # The bars themselves are the same after a half turn, elsewhere.
    np.testing.assert_allclose(found.distances[0, 0] ** 2, [0, 2, 4, 2, 0], atol=1e-5)
    assert found.labels.tolist() == [0]


def test_images_are_moved_as_whole_pixels_are(rng):
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


def test_batches_do_not_matter(detector, rng):
    images = rng.uniform(0, 1, (2, SIZE, SIZE, 3))
    for transform in ("translation", "scale", "rotation"):
        one, other = (invariance(detector, images, transform, batch_size=size) for size in (3, 50))
        np.testing.assert_allclose(one.distances, other.distances, atol=1e-5)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
        assert one.distances.shape == (2, 2, len(one.amounts))


def test_wrong_requests(detector):
    image = corner(3, 4)
    for options, text in (
        ({"transform": "turn"}, "Unknown transformation 'turn'"),
        ({"transform": "scale", "amounts": [0]}, "A scale is a factor"),
        ({"transform": "scale", "labels": [2]}, "one label for each image, 0 to 1"),
        ({"transform": "scale", "labels": []}, "Image 0 has no class"),
        ({"transform": "scale", "layers": ["conv3"]}, "Unknown layer 'conv3'"),
    ):
        with pytest.raises(UsageError, match=text):
            invariance(detector, image, **options)
    headless = keras.Model(detector.input, detector.get_layer("pool2").output)
    with pytest.raises(UsageError, match="gives no class probabilities"):
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
    # Before the detector its pixels are scaled: files hold 0..255.
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
    # Two rows of four panels, each with something in it.
    pixels = matplotlib.image.imread(picture)[..., :3]
    for panel in (p for row in np.array_split(pixels, 2) for p in np.array_split(row, 4, axis=1)):
        assert np.ptp(panel, axis=(0, 1)).min() > 0.5
    picture.unlink()
    for more, said in (
        (["--target", "0", "cat"], "Unknown class 'cat'"),
        (["--target", "0"], "Image 1 has no class of the network's"),
        (["--transform", "turn"], "Unknown transformation 'turn'"),
        (["--layer", "conv9"], "Unknown layer 'conv9'"),
    ):
        assert main([*command, *more]) == 2
        assert said in capsys.readouterr().err
        assert not picture.exists()

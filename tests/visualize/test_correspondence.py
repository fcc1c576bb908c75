"""Correspondence of parts against loops over pairs, and in models with known distances."""

import json

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from cnnkit.cli.main import main
from cnnkit.cli.visualize.correspondence import read_object_parts
from cnnkit.errors import DataError, UsageError
from cnnkit.visualize import Box, correspondence
from cnnkit.visualize.correspondence import _random_boxes


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(5)
    inputs = keras.Input((14, 16, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(6, 5, strides=2, activation="relu", name="conv1")(x)
    x = layers.Dense(20, activation="relu", name="fc")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).uniform(0, 255, (4, 14, 16, 3)).astype("float32")


PARTS = {
    "nose": [Box(0, 0, 4, 4), Box(2, 3, 6, 7), Box(9, 1, 13, 5), Box(10, 12, 14, 16)],
    "ear": [Box(5, 5, 8, 11)] * 4,
}


def test_equals_a_loop_over_pairs(net, images):
    found = correspondence(net, images, PARTS, ["conv1", "fc"], fill=90, draws=3, batch_size=3)
    for layer in ("conv1", "fc"):
        one = found[layer]
        assert one.parts == ("nose", "ear", "random")
        features = keras.Model(net.input, net.get_layer(layer).output)
        for part, places in PARTS.items():
            signs = []
            for image, box in zip(images, places, strict=True):
                hidden = image.copy()
                hidden[box.top : box.bottom, box.left : box.right] = 90
                both = features(np.stack([image, hidden])).numpy().reshape(2, -1)
                signs.append(
                    np.sign(np.where(np.abs(both[0] - both[1]) < 1e-5, 0, both[0] - both[1]))
                )
            total, pairs = 0.0, []
            for i in range(4):
                for j in range(4):
                    if i != j:
                        distance = sum(a != b for a, b in zip(signs[i], signs[j], strict=True))
                        total += distance / len(signs[i])
                        if i < j:
                            pairs.append(distance / len(signs[i]))
            # Except for changes of zero with rounding errors.
            assert one.delta(part) == pytest.approx(total, abs=12 * 2 / one.units)
            assert one.mean(part) == pytest.approx(np.mean(pairs), abs=2 / one.units)
            assert one.std(part) == pytest.approx(np.std(pairs), abs=2 / one.units)
            unchanged = np.mean(np.array(signs) == 0)
            assert one.unchanged[one.parts.index(part)] == pytest.approx(unchanged, abs=0.02)
            assert 0 < one.mean(part) < 1
        assert len(one.distances[2]) == 3 * 6
        assert one.delta("random") == pytest.approx(12 * one.mean("random"))


def test_units_that_do_not_see_the_part_do_not_change(net, images):
    """Occluding a corner changes at most 2 x 2 positions of conv1, the same in all images."""
    corner = {"corner": [Box(0, 0, 4, 4)] * 4}
    one = correspondence(net, images, corner, ["conv1"], draws=0)["conv1"]
    assert one.parts == ("corner",)
    assert one.units == 5 * 6 * 6
    assert one.unchanged[0] >= 1 - 4 / 30
    assert one.mean("corner") <= 4 / 30


def test_equal_changes_have_distance_zero(images):
    """The mean of a bright image falls wherever it is occluded."""
    inputs = keras.Input((14, 16, 3))
    mean = layers.Conv2D(2, 1, name="both")(layers.AveragePooling2D((14, 16))(inputs))
    model = keras.Model(inputs, mean)
    model.get_layer("both").set_weights([np.array([[[[1, -1]] * 3]], "float32"), np.zeros(2)])
    bright = 128 + images / 2
    one = correspondence(model, bright, PARTS, ["both"], fill=0)["both"]
    assert [one.mean(part) for part in one.parts] == [0, 0, 0]
    # If an image is darker than the fill, both of its units change in the other direction.
    mixed = bright.copy()
    mixed[3] -= 256
    other = correspondence(model, mixed, PARTS, ["both"], fill=0)["both"]
    assert other.mean("nose") == pytest.approx(3 / 6)
    # With a tolerance above every change there is no sign at all.
    none = correspondence(model, mixed, PARTS, ["both"], fill=0, atol=1e6)["both"]
    assert none.unchanged == (1, 1, 1)
    assert none.mean("nose") == 0


def test_random_boxes_depend_on_the_seed_and_lie_within_the_image(net, images):
    one, again, other = (
        correspondence(net, images, PARTS, ["conv1"], seed=seed)["conv1"].distances[-1]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_random_boxes_lie_anywhere_within_the_image():
    """Boxes of 2 x 3 pixels in 3 x 5: both rows and all three columns are drawn, and no others."""
    part = [Box(0, 0, 2, 3)]
    boxes = [one for [one] in _random_boxes((3, 5), [part], 60, seed=0)]
    assert {(one.top, one.left) for one in boxes} == set(np.ndindex(2, 3))
    assert {(one.bottom - one.top, one.right - one.left) for one in boxes} == {(2, 3)}
    # Every part gives its sizes to some of them.
    drawn = _random_boxes((3, 5), [part, [Box(0, 0, 1, 1)]], 20, seed=0)
    assert {one.bottom - one.top for [one] in drawn} == {1, 2}


def test_a_part_is_covered_by_the_gray_of_the_model(net, images):
    nose = {"nose": PARTS["nose"]}
    default, gray, black = (
        correspondence(net, images, nose, ["conv1"], draws=0, **options)["conv1"].distances[0]
        for options in ({}, {"fill": 128}, {"fill": 0})
    )
    np.testing.assert_array_equal(default, gray)
    assert (default != black).any()


def test_invalid_arguments(net, images):
    for arguments, text in (
        (
            (images[:1], {"nose": PARTS["nose"][:1]}),
            "`images` must hold at least 2 images. Received: 1",
        ),
        ((images, {}), "`boxes` must name at least one part"),
        ((images, {"nose": PARTS["nose"][:3]}), "one box of part 'nose' for every image"),
        ((images, {"nose": [Box(0, 0, 15, 4)] * 4}), "'nose' does not lie in image 0"),
        ((images, {"nose": [Box(4, 4, 4, 8)] * 4}), "'nose' does not lie in image 0"),
        ((images, {"nose": [Box(4, 4, 8, 4)] * 4}), "'nose' does not lie in image 0"),
        ((images, {"nose": [Box(-1, 0, 4, 4)] * 4}), "'nose' does not lie in image 0"),
        ((images, {"nose": [Box(0, -1, 4, 4)] * 4}), "'nose' does not lie in image 0"),
        ((images, {"nose": [Box(0, 0, 4, 17)] * 4}), "'nose' does not lie in image 0"),
        ((images, {"random": PARTS["ear"]}), "must not name a part 'random'"),
    ):
        with pytest.raises(UsageError, match=text):
            correspondence(net, *arguments, ["fc"])
    kernel, bias = net.get_layer("fc").get_weights()
    net.get_layer("fc").set_weights([kernel, bias * np.nan])
    with pytest.raises(DataError, match="'fc' has weights that are not finite"):
        correspondence(net, images, PARTS, ["conv1", "fc"])
    # Infinity before and after: their difference is NaN.
    net.get_layer("fc").set_weights([np.full_like(kernel, 3e38), bias])
    with pytest.raises(DataError, match="'fc' has values for image 0 that are not finite"):
        correspondence(net, images, PARTS, ["conv1", "fc"])
    net.get_layer("fc").set_weights([kernel, bias])


@pytest.fixture
def files(tmp_path, rng):
    """A model of 16 x 16 pixels, and two images twice as large, one of them wider."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv1")(inputs)
    keras.Model(inputs, x).save(tmp_path / "model.keras")
    for name, shape in (("a.png", (32, 32, 3)), ("b.png", (32, 48, 3))):
        keras.utils.save_img(tmp_path / name, rng.uniform(0, 255, shape))
    entries = [
        {"image": "a.png", "parts": {"eye": [4, 8, 12, 16]}},
        {"image": "b.png", "parts": {"eye": [4, 16, 12, 24]}},
    ]
    return tmp_path, entries


def command(folder, entries, *more):
    (folder / "parts.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return main(["visualize", "correspondence", str(folder / "model.keras"),
                 "--preprocessing", "raw",
                 str(folder / "parts.json"), "--layer", "conv1", "--output",
                 str(folder / "parts.png"), *more])  # fmt: skip


def test_correspondence_command(files, capsys):
    folder, entries = files
    assert command(folder, entries, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["layers"]["conv1"]) == {"eye", "random"}
    assert json.loads((folder / "parts.png.json").read_text()) == facts
    arrays = np.load(folder / "parts.png.npz")
    assert facts["layers"]["conv1"]["eye"]["mean"] == pytest.approx(arrays["conv1_eye"].mean())
    # Halved, and of the wider image 8 of 48 columns are cut off on either side.
    images, boxes = read_object_parts(folder / "parts.json", 16)
    assert images.shape == (2, 16, 16, 3)
    assert boxes == {"eye": [Box(2, 4, 6, 8), Box(2, 4, 6, 8)]}
    # In the second row of images the eye is hidden by gray.
    pixels = matplotlib.image.imread(folder / "parts.png")[..., :3]
    gray = np.abs(pixels - 128 / 255).max(axis=-1) < 0.005
    assert gray[len(gray) // 2 :].sum() > 2 * 200


def test_wrong_files(files, capsys):
    folder, entries = files
    for text, said in (
        ("{", "must hold images and their parts"),
        ([{"image": "a.png"}], "must hold images and their parts"),
        ([{"image": "a.png", "parts": {"eye": [1, 2, 3]}}], "must hold images and their parts"),
        (
            [entries[0], {**entries[1], "parts": {"ear": [1, 2, 3, 4]}}],
            "b.png must have the same parts as the first image",
        ),
        # b.png is 48 wide: its central square begins at column 8.
        (
            [entries[0], {**entries[1], "parts": {"eye": [4, 0, 12, 12]}}],
            "within 0 8 32 40 of the file's pixels. Received: 4 0 12 12.",
        ),
        ([entries[0], {**entries[1], "image": "c.png"}], "No image file"),
        (entries[:1], "at least 2"),
        ([], "at least 2"),
    ):
        assert command(folder, text) in (1, 2)
        assert said in capsys.readouterr().err
        assert not (folder / "parts.png").exists()

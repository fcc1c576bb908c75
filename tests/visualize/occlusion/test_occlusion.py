"""Occlusion against an independent implementation and a model built by hand."""

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from cnnkit.cli.main import main
from cnnkit.errors import DataError, UsageError
from cnnkit.figures.occlusion import draw_occlusion
from cnnkit.layers import (
    ReLU,
)
from cnnkit.visualize import deconvnet, occlusion
from cnnkit.visualize.occlusion.occlusion import default_square
from tests.visualize.occlusion.networks import (
    METHODS,
    classifier,
    random_image,
    residual,
    strided,
)


@pytest.fixture(scope="module")
def oracle(shared):
    arrays = dict(np.load(shared("oracles/oracle_captum.npz")))
    inputs = keras.Input((33, 41, 3))
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.Conv2D(8, 5, strides=2, activation=ReLU(), name="conv1")(x)
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="conv2")(x)
    x = layers.ReLU()(layers.Conv2D(10, 3, padding="same", name="conv3")(x))
    x = layers.Dense(16, activation=ReLU(), name="fc1")(
        layers.Flatten()(layers.MaxPooling2D(3, 2)(x))
    )
    model = keras.Model(inputs, layers.Dense(7, name="fc2")(x))
    for name in ("conv1", "conv2", "conv3", "fc1", "fc2"):
        model.get_layer(name).set_weights([arrays[f"{name}/kernel"], arrays[f"{name}/bias"]])
    return model, arrays


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("i", range(4))
def test_oracle(oracle, method, i):
    model, arrays = oracle
    ask = partial(
        occlusion,
        model,
        arrays["x"][i],
        int(arrays["occ/window"]),
        int(arrays["occ/stride"]),
        float(arrays["occ/value"]),
        method,
        target=int(arrays["target"][i]),
        layer=next(layer.name for layer in model.layers if isinstance(layer, layers.ReLU)),
    )
    seen = ask()
    assert seen.method == method
    assert seen.unit == arrays["occ/map"][i]
    np.testing.assert_array_equal(seen.label, arrays["occ/label"][i])
    np.testing.assert_allclose(seen.probability, arrays["occ/prob"][i], rtol=0, atol=1e-5)
    # Sums of about a hundred, of which float32 holds 1e-5.
    np.testing.assert_allclose(seen.activity, arrays["occ/activity"][i], rtol=1e-6)
    # Captum covers the ragged border too, and gives a value to every pixel and channel.
    drop = ask(edge="clip").score_drop()
    largest = np.abs(arrays["occ/captum"][i]).max()
    for channel in range(3):
        expected = arrays["occ/captum"][i][..., channel]
        np.testing.assert_allclose(drop, expected, rtol=0, atol=1e-5 * max(1, largest))


def detector(cross_at=(12, 20), gain=20.0, shape=(32, 40, 3)):
    """A net that detects a cross of 5 x 5 pixels, and an image with one around `cross_at`."""
    cross = np.zeros((5, 5), np.float32)
    cross[2] = cross[:, 2] = 1
    inputs = keras.Input(shape)
    # Only the whole cross is above the bias: nine pixels of three channels.
    x = layers.Conv2D(2, 5, padding="same", activation="relu", name="detect")(inputs)
    x = layers.Dense(2, name="logits")(layers.GlobalMaxPooling2D()(x))
    model = keras.Model(inputs, layers.Softmax()(x))
    kernel = np.zeros((5, 5, 3, 2), np.float32)
    kernel[..., 1] = (2 * cross - 1)[:, :, None] / 27
    model.get_layer("detect").set_weights([kernel, np.array([0.1, -0.5], np.float32)])
    weights = np.array([[0, 0], [-gain, gain]], np.float32)
    model.get_layer("logits").set_weights([weights, np.array([gain / 4, -gain / 4], np.float32)])
    image = np.zeros(shape, np.float32)
    row, column = cross_at
    image[row - 2 : row + 3, column - 2 : column + 3] = cross[:, :, None]
    return model, image


@pytest.mark.parametrize("method", METHODS)
def test_the_known_pattern_is_found(method):
    model, image = detector()
    seen = occlusion(model, image, 5, 1, 0.0, method, layer="detect", unit=1)
    assert (seen.target, seen.unit) == (1, 1)
    assert seen.clean_probability > 0.99
    # By hand: the visible ones of the cross's nine pixels, minus the bias.
    cross = image[..., 0]
    left = [[9 - cross[r : r + 5, c : c + 5].sum() for c in seen.columns] for r in seen.rows]
    np.testing.assert_allclose(seen.activity, np.maximum(np.array(left) / 9 - 0.5, 0), atol=1e-6)
    hidden = seen.rows.tolist().index(10), seen.columns.tolist().index(18)
    assert seen.probability[hidden] == seen.probability.min() < 0.01
    # Squares that do not cover the cross change nothing.
    clear = (np.abs(seen.rows[:, None] - 10) > 4) | (np.abs(seen.columns - 18) > 4)
    np.testing.assert_allclose(seen.probability[clear], seen.clean_probability, atol=1e-6)
    assert (seen.label[clear] == 1).all()
    assert seen.label[hidden] == 0
    drop = seen.score_drop()
    assert np.unravel_index(drop.argmax(), drop.shape) == (12, 20)
    # The map's projection lies on the cross.
    projection = seen.projection.projection
    assert projection[12, 20].min() > 0
    assert seen.projection.position == (12, 20)


def test_places_of_the_square_and_edges():
    model, image = detector()
    inside = occlusion(model, image, (5, 8), (4, 7), 0.0, target=1, layer="detect", unit=1)
    assert inside.rows.tolist() == list(range(0, 28, 4))
    assert inside.columns.tolist() == [0, 7, 14, 21, 28]
    clipped = occlusion(
        model, image, (5, 8), (4, 7), 0.0, target=1, layer="detect", unit=1, edge="clip"
    )
    assert clipped.rows.tolist() == list(range(0, 29, 4))
    assert clipped.columns.tolist() == [0, 7, 14, 21, 28, 35]
    np.testing.assert_allclose(clipped.probability[:7, :5], inside.probability, atol=1e-6)
    assert np.isnan(inside.score_drop()).sum() == 32 * 40 - 29 * 36
    assert not np.isnan(clipped.score_drop()).any()


def test_batches_do_not_matter():
    model, image = classifier(strided), random_image()
    results = [
        occlusion(model, image, 9, 4, 0, method, batch_size)
        for method in METHODS
        for batch_size in (1, 5, 100)
    ]
    for one in results[1:]:
        np.testing.assert_allclose(one.probability, results[0].probability, atol=1e-6)


def test_the_model_is_not_changed():
    model, image = classifier(residual), random_image()
    before, weights = model.to_json(), model.get_weights()
    occlusion(model, image, 9, 9, 0)
    assert model.to_json() == before
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_without_known_windows_is_computed_plainly():
    inputs = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.UpSampling2D(2)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    image = np.ones((12, 12, 3))
    assert occlusion(model, image, 4, 4, 0, unit=0).method == "plain"
    x = layers.Flatten()(layers.UnitNormalization()(inputs))
    plain = keras.Model(inputs, layers.Dense(2)(x))
    assert occlusion(plain, image, 4, 4, 0, unit=0).projection is None
    with pytest.raises(UsageError, match=r"first.*Use .method=.plain."):
        occlusion(model, image, 4, 4, 0, "incremental")


def test_sigmoids_are_probabilities():
    inputs = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, name="c")(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    image = random_image((12, 12, 3))
    seen = occlusion(model, image, 4, 4, 0, target=1)
    assert seen.clean_probability == pytest.approx(float(model(image[None])[0, 0]), abs=1e-6)
    assert seen.clean_label == (seen.clean_probability > 0.5)
    no = occlusion(model, image, 4, 4, 0, target=0)
    np.testing.assert_allclose(no.probability, 1 - seen.probability, atol=1e-6)
    assert np.ptp(seen.probability) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"square": 33},
            "`square` must not be larger than the image. Expected: at most 32 x 40. "
            "Received: 33 x 33",
        ),
        ({"square": (5, 41)}, "`square` must not be larger than the image"),
        ({"square": 0}, "`square` must be a whole number"),
        ({"stride": 0}, "`stride` must be a whole number"),
        ({"stride": (1, 2, 3)}, "`stride` must be a whole number"),
        ({"fill": (1, 2)}, "`fill` must be one color. Expected: 1 or 3 numbers"),
        ({"fill": float("nan")}, "`fill` must be one color"),
        ({"method": "incremntal"}, "Did you mean incremental"),
        ({"edge": "clipped"}, "Did you mean clip"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"target": 2}, "has no class 2. Expected: 0 to 1"),
        ({"target": "cat"}, "Unknown class 'cat'. Its classes have no names"),
        ({"layer": "detekt"}, "Did you mean detect"),
        ({"layer": "logits"}, "Layer 'logits' has no feature map"),
        ({"layer": "detect", "unit": 2}, "has no unit 2. Expected: 0 to 1"),
    ],
)
def test_invalid_arguments(arguments, text):
    model, image = detector()
    with pytest.raises(UsageError) as error:
        occlusion(model, image, **arguments)
    assert text in str(error.value)


def test_invalid_images_and_models():
    model, image = detector()
    with pytest.raises(UsageError, match="`images` must have the shape"):
        occlusion(model, image[:20])
    with pytest.raises(UsageError, match="`image` must be a single image"):
        occlusion(model, image[None])
    with pytest.raises(UsageError, match="is not a classifier"):
        occlusion(keras.Model(model.input, model.get_layer("detect").output), image)
    with pytest.raises(DataError, match="does not fire"):
        occlusion(model, np.zeros_like(image), 5, layer="detect", unit=1)
    image[3, 3] = np.nan
    with pytest.raises(DataError, match="not finite"):
        occlusion(model, image)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * np.nan, bias])
    with pytest.raises(DataError, match="'logits' has weights that are not finite"):
        occlusion(model, detector()[1], 5, 8)


def test_a_dead_layer_is_named():
    model, image = detector()
    kernel, _ = model.get_layer("detect").get_weights()
    model.get_layer("detect").set_weights([kernel * 0, np.full(2, -1.0)])
    with pytest.raises(DataError, match="No unit of detect fires on this image"):
        occlusion(model, image, 5, 8, layer="detect")


def test_command(tmp_path, capsys):
    # Pixels are 255 instead of 1.
    model, image = detector(shape=(32, 32, 3))
    kernel, bias = model.get_layer("detect").get_weights()
    model.get_layer("detect").set_weights([kernel / 255, bias])
    model.save(tmp_path / "model.keras")
    keras.utils.save_img(tmp_path / "image.png", 255 * image, scale=False)
    picture = tmp_path / "seen.png"
    files = [str(tmp_path / "model.keras"), str(tmp_path / "image.png")]
    command = ["visualize", "occlusion", *files, "--preprocessing", "raw"]
    options = ["--square", "5", "--stride", "2", "--fill", "0", "--output", str(picture)]
    assert main([*command, *options, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads((tmp_path / "seen.png.json").read_text())
    assert (facts["target"], facts["method"], facts["layer"]) == (1, "incremental", "detect")
    arrays = np.load(tmp_path / "seen.png.npz")
    assert arrays["probability"].shape == (14, 14)
    assert facts["clean_probability"] > 0.99 > arrays["probability"].min()
    assert matplotlib.image.imread(picture).shape[2] in (3, 4)
    assert main([*command, *options, "--overwrite"]) == 0
    row, column = np.unravel_index(arrays["probability"].argmin(), (14, 14))
    least, most = arrays["probability"].min(), arrays["probability"].max()
    assert capsys.readouterr().out == (
        f"{picture}: class 1 has the probability {facts['clean_probability']:.3g} in the whole"
        f" image; with a square of 5 x 5 pixels covered it is {least:.3g} (top left at row"
        f" {2 * row}, column {2 * column}) to {most:.3g}, over 196 places\n"
    )
    for wrong, text in (
        (["--square", "33"], "--square must not be larger than the image"),
        (["--target", "cat"], "Unknown class 'cat'"),
        (["--fill", "1", "2"], "--fill must be one level of gray"),
    ):
        other = tmp_path / "other.png"
        assert main([*command, *wrong, "--output", str(other)]) == 2
        assert text in capsys.readouterr().err
        assert not other.exists()


def test_projections_of_the_same_map_from_other_images(tmp_path, capsys):
    model, image = detector(shape=(32, 32, 3))
    kernel, bias = model.get_layer("detect").get_weights()
    model.get_layer("detect").set_weights([kernel / 255, bias])
    model.save(tmp_path / "model.keras")
    # Rotated by a half turn, and a blank image.
    pixels = {"image": image, "turned": image[::-1, ::-1], "none": np.zeros_like(image)}
    files = {name: str(tmp_path / f"{name}.png") for name in pixels}
    for name, values in pixels.items():
        keras.utils.save_img(files[name], 255 * values, scale=False)
    command = ["visualize", "occlusion", str(tmp_path / "model.keras"), files["image"],
               "--preprocessing", "raw", "--square",
               "5", "--stride", "2", "--fill", "0"]  # fmt: skip
    alone, beside = tmp_path / "alone.png", tmp_path / "beside.png"
    assert main([*command, "--output", str(alone)]) == 0
    others = [files["turned"], files["none"]]
    assert main([*command, "--output", str(beside), "--others", *others]) == 0
    facts = json.loads((tmp_path / "beside.png.json").read_text())
    assert [one["file"] for one in facts["others"]] == others
    for n, name in enumerate(("turned", "none")):
        [expected] = deconvnet(model, 255 * pixels[name], facts["layer"], facts["unit"])
        found = np.load(f"{beside}.npz")[f"projection_of_other_{n}"]
        np.testing.assert_allclose(found, expected.projection, atol=1e-6)
        assert facts["others"][n]["activation"] == pytest.approx(expected.activation, rel=1e-5)
    assert json.loads((tmp_path / "alone.png.json").read_text())["others"] == []
    # The third of five columns, without what is above and below it: four places, one of them empty.
    column = np.array_split(matplotlib.image.imread(beside)[95:452, :, :3], 5, axis=1)[2]
    quarters = [q for half in np.array_split(column, 2) for q in np.array_split(half, 2, axis=1)]
    assert [np.mean(quarter < 0.99) > 0.3 for quarter in quarters] == [True, True, True, False]
    assert main([*command, "--output", str(alone), "--others", "missing.png"]) == 2
    assert (
        "--others must be an existing image file, received missing.png" in capsys.readouterr().err
    )


def test_the_square_is_a_seventh_of_the_image_and_moves_by_a_quarter():
    """As 32 of 224 pixels and 8; a square of 32 would leave hardly any place on a small image."""
    model, image = detector(shape=(64, 72, 3))
    seen = occlusion(model, image)
    assert seen.square == (9, 9)
    assert (seen.rows.tolist(), seen.columns[-1]) == (list(range(0, 56, 2)), 62)
    seen = occlusion(model, image, (9, 20))
    assert (seen.square, seen.rows[1], seen.columns[1]) == ((9, 20), 2, 2)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((224, 300, 3), 32), ((5, 9, 3), 2), ((18, 18, 3), 3), ((1, 4, 3), 1), ((4, 1, 3), 1)],
)
def test_the_default_square_has_two_pixels_where_the_image_has(shape, expected):
    assert default_square(shape) == expected


def test_a_black_square_where_the_activity_is_lowest(monkeypatch):
    model, image = detector(shape=(32, 32, 3))
    seen = occlusion(model, image, 5, 2)
    activity = np.full_like(seen.activity, 3)
    activity[4, 11], activity[12, 2] = 1, 5
    drawn = []
    monkeypatch.setattr(
        "cnnkit.figures.occlusion.save_figure", lambda figure, *_, **__: drawn.append(figure)
    )
    draw_occlusion(image, dataclasses.replace(seen, activity=activity), "seen.png")
    [square] = drawn[0].axes[2].patches
    # Row 4 and column 11 of the grid; matplotlib's pixels have their centers at whole numbers.
    assert square.get_xy() == (22 - 0.5, 8 - 0.5)
    assert (square.get_width(), square.get_height()) == (5, 5)


def test_examples_of_the_page_run(capsys):
    page = Path(__file__).resolve().parents[3] / "docs" / "guide" / "occlusion.md"
    exec("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)), {})
    assert capsys.readouterr().out.startswith("(7, 7) [ 0  8 16 24 32 40 48] incremental")

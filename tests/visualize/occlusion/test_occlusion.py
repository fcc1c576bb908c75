"""Occlusion: against an independent implementation, the plain sweep, and a net built by hand."""

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

from cnnkit import alexnet, zfnet
from cnnkit.cli.main import main
from cnnkit.errors import DataError, UsageError
from cnnkit.figures.occlusion import draw_occlusion
from cnnkit.layers import (
    CeilMaxPooling2D,
    ClassProbabilities,
    GroupedConv2D,
    LocalResponseNormalization,
    ReLU,
    SubtractMean,
)
from cnnkit.models.graph import build_graph
from cnnkit.visualize import deconvnet, occlusion
from cnnkit.visualize.occlusion.incremental import incremental_occlusion
from cnnkit.visualize.occlusion.occlusion import plain_occlusion

METHODS = ("plain", "incremental")


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


def classifier(body, shape=(29, 37, 3), classes=5, scale=1.0):
    """A classifier over `body`; its logits are of about `scale`, so that no class wins always."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input(shape)
    x = layers.Flatten()(body(inputs))
    model = keras.Model(inputs, ClassProbabilities()(layers.Dense(classes, name="logits")(x)))
    random = np.random.default_rng(6)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif isinstance(layer, layers.Conv2D):
            kernel, *bias = layer.get_weights()
            layer.set_weights([kernel, *(random.normal(0, 0.1, one.shape) for one in bias)])
    image = picture(shape)
    kernel, bias = model.get_layer("logits").get_weights()
    logits = keras.Model(inputs, model.get_layer("logits").output)(image[None]).numpy()
    model.get_layer("logits").set_weights([kernel * scale / np.abs(logits).max(), bias])
    return model


def picture(shape=(29, 37, 3)):
    return np.random.default_rng(7).uniform(0, 2, shape).astype("float32")


def strided(x):
    """What is pooled is below zero in places: beyond the border nothing is a maximum."""
    x = layers.Conv2D(6, 5, strides=2, padding="same")(x)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    return layers.Conv2D(8, 3, dilation_rate=2, padding="same", activation="tanh")(x)


def grouped(x):
    x = GroupedConv2D(8, 3, strides=2, padding="valid", activation=ReLU())(
        SubtractMean((1, 0, 1))(x)
    )
    x = LocalResponseNormalization(alpha=0.1)(x)
    x = CeilMaxPooling2D()(x)
    return GroupedConv2D(6, 3, padding="same", groups=2, activation=ReLU())(x)


def residual(x):
    x = layers.Conv2D(8, 7, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(x))
    y = layers.Conv2D(8, 3, padding="same")(layers.Activation("relu")(y))
    x = layers.Add()([layers.Conv2D(8, 1, strides=2)(x), y])
    return layers.Concatenate()([x, layers.AveragePooling2D(3, 1, padding="same")(x)])


def borders(x):
    x = layers.Cropping2D(((1, 2), (0, 3)))(layers.ZeroPadding2D(((2, 0), (1, 1)))(x))
    x = LocalResponseNormalization(3, alpha=0.3, region="within")(layers.Conv2D(4, 3)(x))
    return layers.AveragePooling2D((2, 3))(layers.PReLU(shared_axes=(1, 2))(x))


def skipping(x):
    """Windows further apart than they are long: some pixels are never looked at."""
    return layers.Conv2D(6, 2, strides=3)(layers.Conv2D(4, 1, strides=2, activation="relu")(x))


def a_mean_image(x):
    return layers.Conv2D(6, 3, activation="relu")(SubtractMean(picture())(x))


def unknown_in_the_middle(x):
    """A layer that is not known here is computed as it is."""
    x = layers.DepthwiseConv2D(3, activation="relu")(layers.Conv2D(6, 3)(x))
    return layers.Conv2D(4, 3, name="after")(x)


BODIES = (
    strided,
    grouped,
    residual,
    borders,
    skipping,
    a_mean_image,
    unknown_in_the_middle,
)


@pytest.mark.parametrize("body", BODIES)
def test_incremental_equals_plain(body):
    model = classifier(body)
    image = picture()
    one, other = (
        occlusion(model, image, (7, 9), (5, 4), (0.5, 1, 1.5), method, 7, edge="clip")
        for method in METHODS
    )
    assert (one.method, other.method) == METHODS
    assert np.ptp(one.probability) > 1e-3
    assert one.probability.max() < 0.9
    np.testing.assert_allclose(other.probability, one.probability, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(other.label, one.label)
    np.testing.assert_allclose(other.activity, one.activity, rtol=1e-5, atol=1e-5)
    assert other.clean_probability == pytest.approx(one.clean_probability, abs=1e-6)
    assert (other.layer, other.unit) == (one.layer, one.unit)


@pytest.mark.parametrize("body", BODIES)
def test_every_map_is_that_of_the_plain_sweep(body):
    calls = build_graph(classifier(body)).nodes
    image = picture()
    random = np.random.default_rng(8)
    corners = random.integers(0, (29, 37), (40, 2))
    ends = np.minimum(corners + random.integers(1, 12, (40, 2)), (29, 37))
    rectangles = np.stack([corners, ends], axis=-1)
    wanted = [(call, None) for call in calls]
    filled = np.full_like(image, 3)
    one, other = (
        sweep(calls, image, filled, wanted)(rectangles, 9)
        for sweep in (plain_occlusion, incremental_occlusion)
    )
    for expected, got, (call, _) in zip(one, other, wanted, strict=True):
        assert np.ptp(expected, axis=0).max() > 1e-3, "the squares are seen"
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5, err_msg=call.layer.name)


@pytest.mark.parametrize("build", [alexnet, zfnet])
def test_networks(build):
    model = build(input_shape=(96, 96, 3), classes=4, initializer="glorot", hidden_units=16)
    image = np.random.default_rng(1).uniform(0, 255, (96, 96, 3))
    one, other = (occlusion(model, image, 16, 16, method=method) for method in METHODS)
    assert one.layer == "pool5"
    assert 0.05 < one.probability.min() < one.probability.max() < 0.95
    np.testing.assert_allclose(other.probability, one.probability, rtol=0, atol=1e-5)
    np.testing.assert_allclose(other.activity, one.activity, rtol=1e-4)
    assert one.projection.unit == one.unit
    assert one.projection.projection.shape == (96, 96, 3)


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
    # By hand: what is left of the cross's nine pixels, less the half that the bias asks for.
    cross = image[..., 0]
    left = [[9 - cross[r : r + 5, c : c + 5].sum() for c in seen.columns] for r in seen.rows]
    np.testing.assert_allclose(seen.activity, np.maximum(np.array(left) / 9 - 0.5, 0), atol=1e-6)
    hidden = seen.rows.tolist().index(10), seen.columns.tolist().index(18)
    assert seen.probability[hidden] == seen.probability.min() < 0.01
    # Where the square is clear of the cross, nothing changes.
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


def test_places_and_edges():
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
    model, image = classifier(strided), picture()
    results = [
        occlusion(model, image, 9, 4, 0, method, batch_size)
        for method in METHODS
        for batch_size in (1, 5, 100)
    ]
    for one in results[1:]:
        np.testing.assert_allclose(one.probability, results[0].probability, atol=1e-6)


def test_the_model_is_left_as_it_was():
    model, image = classifier(residual), picture()
    before, weights = model.to_json(), model.get_weights()
    occlusion(model, image, 9, 9, 0)
    assert model.to_json() == before
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_a_window_the_sweep_is_plain():
    inputs = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    image = np.ones((12, 12, 3))
    assert occlusion(model, image, 4, 4, 0, unit=0).method == "plain"
    assert occlusion(model, image, 4, 4, 0, unit=0).projection is None
    with pytest.raises(UsageError, match=r"first.*Take method=.plain."):
        occlusion(model, image, 4, 4, 0, "incremental")


def test_sigmoids_are_probabilities_already():
    inputs = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, name="c")(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    image = picture((12, 12, 3))
    seen = occlusion(model, image, 4, 4, 0)
    assert seen.clean_probability == pytest.approx(float(model(image[None])[0, 0]), abs=1e-6)
    assert np.ptp(seen.probability) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"square": 33}, "larger than the image. Expected: at most 32 x 40. Received: 33 x 33"),
        ({"square": (5, 41)}, "larger than the image"),
        ({"square": 0}, "The square is a whole number"),
        ({"stride": 0}, "The stride is a whole number"),
        ({"stride": (1, 2, 3)}, "The stride is a whole number"),
        ({"fill": (1, 2)}, "one color. Expected: 1 or 3 numbers"),
        ({"fill": float("nan")}, "one color"),
        ({"method": "incremntal"}, "Did you mean incremental"),
        ({"edge": "clipped"}, "Did you mean clip"),
        ({"batch_size": 0}, "A batch holds one place or more"),
        ({"target": 2}, "has no class 2. Expected: 0 to 1"),
        ({"target": "cat"}, "Unknown class 'cat'. Its classes have no names"),
        ({"layer": "detekt"}, "Did you mean detect"),
        ({"layer": "logits"}, "Layer 'logits' has no map"),
        ({"layer": "detect", "unit": 2}, "has no unit 2. Expected: 0 to 1"),
    ],
)
def test_wrong_arguments(arguments, text):
    model, image = detector()
    with pytest.raises(UsageError) as error:
        occlusion(model, image, **arguments)
    assert text in str(error.value)


def test_wrong_images_and_models():
    model, image = detector()
    with pytest.raises(UsageError, match="`images` must have the shape"):
        occlusion(model, image[:20])
    with pytest.raises(UsageError, match="One image is covered"):
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
    # Pixels of 255 instead of 1.
    model, image = detector(shape=(32, 32, 3))
    kernel, bias = model.get_layer("detect").get_weights()
    model.get_layer("detect").set_weights([kernel / 255, bias])
    model.save(tmp_path / "model.keras")
    keras.utils.save_img(tmp_path / "image.png", 255 * image, scale=False)
    picture = tmp_path / "seen.png"
    command = ["visualize", "occlusion", str(tmp_path / "model.keras"), str(tmp_path / "image.png")]
    options = ["--square", "5", "--stride", "2", "--fill", "0", "--output", str(picture)]
    assert main([*command, *options, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads((tmp_path / "seen.png.json").read_text())
    assert (facts["target"], facts["method"], facts["layer"]) == (1, "incremental", "detect")
    arrays = np.load(tmp_path / "seen.png.npz")
    assert arrays["probability"].shape == (14, 14)
    assert facts["clean_probability"] > 0.99 > arrays["probability"].min()
    assert matplotlib.image.imread(picture).shape[2] in (3, 4)
    for wrong, text in (
        (["--square", "33"], "larger than the image"),
        (["--target", "cat"], "Unknown class 'cat'"),
        (["--fill", "1", "2"], "one color"),
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
    # Turned by half, and an image in which there is nothing.
    pixels = {"image": image, "turned": image[::-1, ::-1], "none": np.zeros_like(image)}
    files = {name: str(tmp_path / f"{name}.png") for name in pixels}
    for name, values in pixels.items():
        keras.utils.save_img(files[name], 255 * values, scale=False)
    command = ["visualize", "occlusion", str(tmp_path / "model.keras"), files["image"], "--square",
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
    # The third of five columns, without its title: four places, one of them empty.
    column = np.array_split(matplotlib.image.imread(beside)[60:-60, :, :3], 5, axis=1)[2]
    quarters = [q for half in np.array_split(column, 2) for q in np.array_split(half, 2, axis=1)]
    assert [np.mean(quarter < 0.99) > 0.3 for quarter in quarters] == [True, True, True, False]
    assert main([*command, "--output", str(alone), "--others", "missing.png"]) == 2
    assert "No image file missing.png" in capsys.readouterr().err


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
    # Row 4 and column 11 of the grid; matplotlib's pixels have their middles at whole numbers.
    assert square.get_xy() == (22 - 0.5, 8 - 0.5)
    assert (square.get_width(), square.get_height()) == (5, 5)


def test_examples_of_the_page_run(capsys):
    page = Path(__file__).resolve().parents[3] / "docs" / "occlusion.md"
    exec("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)), {})
    assert capsys.readouterr().out.startswith("(7, 7) [ 0  8 16 24 32 40 48] incremental")

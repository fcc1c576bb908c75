"""Comparison of attribution methods, the sanity check, and the commands of attribution."""

import json
import re
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit.cli.main import main
from cnnkit.errors import DataError, UsageError
from cnnkit.layers import ClassProbabilities
from cnnkit.visualize import compare_attributions, deconvnet, gradcam, saliency, smoothgrad
from cnnkit.visualize.attribution.base import prepare_query
from cnnkit.visualize.attribution.sanity_check import shuffled_weights

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "attribution.md"
SHAPE = (24, 24, 3)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(6, 3, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 3, activation="relu", name="conv2")(x)
    x = layers.Dense(3, name="logits")(layers.Flatten(name="flat")(x))
    return keras.Model(
        inputs, ClassProbabilities(name="probabilities", class_names=("a", "b", "c"))(x)
    )


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).uniform(0, 255, SHAPE).astype("float32")


def ranks(values):
    """The smallest value has rank 1; equal values share their mean rank."""
    values = np.asarray(values)
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def test_maps_equal_those_of_the_methods(model, image):
    methods = ["deconvnet", "guided", "gradient", "saliency", "smoothgrad", "gradcam"]
    seen = compare_attributions(model, image, methods, "b", down_to=[], samples=3, seed=5)
    assert seen.target == 1
    for rule, values in zip(("deconvnet", "guided", "gradient"), seen.maps, strict=False):
        [expected] = deconvnet(model, image, "probabilities", 1, rule=rule)
        np.testing.assert_array_equal(values, expected.projection)
    np.testing.assert_array_equal(seen.maps[3], saliency(model, image, 1)[0].map)
    # Saliency is the largest absolute gradient over the colors.
    np.testing.assert_allclose(np.abs(seen.maps[2]).max(axis=2), seen.maps[3], rtol=1e-4, atol=1e-9)
    [expected] = smoothgrad(model, image, 1, samples=3, seed=5)
    np.testing.assert_array_equal(seen.maps[4], expected.map)
    np.testing.assert_array_equal(seen.maps[5], gradcam(model, image, 1)[0].map)
    assert seen.correlations.shape == (0, 6)


def test_the_correlation_is_of_ranks(model, image):
    methods = ["guided", "gradient", "saliency", "gradcam"]
    seen = compare_attributions(model, image, methods, 0, seed=2)
    assert seen.stages == ("logits", "conv2", "conv1")
    for maps, row in zip(seen.randomized_maps, seen.correlations, strict=True):
        for one, other, found in zip(seen.maps, maps, row, strict=True):
            assert one.shape == other.shape
            x, y = ranks(np.abs(one).ravel()), ranks(np.abs(other).ravel())
            if np.ptp(x) == 0 or np.ptp(y) == 0:
                assert np.isnan(found)
            else:
                assert found == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    # All weights shuffled: the gradient is uncorrelated.
    assert np.abs(seen.correlations[2, 1]) < 0.5
    assert (seen.correlations[:, :3] < 0.99).all()


def test_only_weights_from_the_stage_to_the_top_are_shuffled(model, image):
    """Compared with the gradient of a model whose upper weights the test shuffles itself."""
    weights = model.get_weights()
    one = compare_attributions(model, image, ["gradient"], 0, down_to=["conv2"], seed=4)
    same = compare_attributions(model, image, ["gradient"], 0, down_to=["logits", "conv2"], seed=4)
    other = compare_attributions(model, image, ["gradient"], 0, down_to=["conv2"], seed=5)
    np.testing.assert_array_equal(one.randomized_maps[0][0], same.randomized_maps[1][0])
    assert (one.randomized_maps[0][0] != other.randomized_maps[0][0]).any()
    assert (same.randomized_maps[0][0] != same.randomized_maps[1][0]).any()
    for after, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(after, before)
    assert [layer.trainable for layer in model.layers] == [True] * len(model.layers)


def test_every_layer_from_the_stage_to_the_top_is_shuffled(model, image):
    query = prepare_query(model, image, 0, 1)
    for name, changed in (("conv1", False), ("conv2", True), ("logits", True)):
        one = model.get_layer(name).get_weights()[0]
        with shuffled_weights(query, query.classifier.graph.node("conv2"), seed=0):
            other = model.get_layer(name).get_weights()[0]
        np.testing.assert_array_equal(model.get_layer(name).get_weights()[0], one)
        assert (one != other).any() == changed
        np.testing.assert_array_equal(np.sort(one.ravel()), np.sort(other.ravel()))


def test_maps_that_do_not_depend_on_the_shuffled_weights_have_correlation_one(image):
    """Equal weights do not change when shuffled, and weights past a dead ReLU have no effect."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(layers.Rescaling(1 / 255)(inputs))
    dead = layers.Conv2D(4, 1, activation="relu", name="dead")(x)
    beside = layers.Conv2D(4, 1, name="beside")(dead)
    x = layers.GlobalAveragePooling2D()(layers.Add(name="sum")([x, beside]))
    model = keras.Model(inputs, layers.Dense(2, name="logits")(x))
    model.get_layer("dead").set_weights([np.zeros((1, 1, 4, 4)), np.full(4, -1.0)])
    model.get_layer("logits").set_weights([np.full((4, 2), 0.3), np.array([1.0, 2.0])])
    # Frozen layers are shuffled as well.
    model.get_layer("conv").trainable = False
    methods = ["deconvnet", "guided", "gradient", "saliency", "smoothgrad", "gradcam"]
    seen = compare_attributions(
        model, image, methods, 0, down_to=["dead", "conv"], layer="conv", samples=2
    )
    np.testing.assert_allclose(seen.correlations[0, 1:], 1, atol=1e-9)
    assert (seen.correlations[1, 1:] < 0.99).all()
    # The deconvnet does not use the forward mask of a ReLU.
    assert seen.correlations[0, 0] < 1


def test_a_constant_map_has_no_correlation(image):
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(1, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    model.get_layer("conv").set_weights([np.ones((3, 3, 3, 1)), np.zeros(1)])
    model.layers[-1].set_weights([np.array([[-1.0, 1]]), np.zeros(2)])
    seen = compare_attributions(model, image, ["gradcam"], 0, down_to=["conv"])
    assert np.isnan(seen.correlations).all()


def test_invalid_arguments(model, image):
    for options, text in (
        ({"methods": ["gradcamm"]}, "Unknown method 'gradcamm'.*Did you mean gradcam"),
        ({"target": "d"}, "Unknown class 'd'"),
        ({"down_to": ["conv3"]}, "Unknown layer 'conv3'"),
        ({"down_to": ["flat"]}, "'flat' has no weights on the way.*conv2, logits"),
        ({"layer": "flat"}, "'flat' has no feature map"),
    ):
        with pytest.raises(UsageError, match=text):
            compare_attributions(model, image, **{"samples": 1, "down_to": [], **options})
    with pytest.raises(UsageError, match="`image` must be a single image"):
        compare_attributions(model, image[None])
    with pytest.raises(DataError, match="pixels that are not finite"):
        compare_attributions(model, image * np.nan)


@pytest.fixture(scope="module")
def files(model, image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model.save(folder / "model.keras")
    keras.utils.save_img(folder / "image.png", image)
    return folder, str(folder / "model.keras"), str(folder / "image.png")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("saliency", []),
        ("smoothgrad", ["--samples", "2", "--seed", "3"]),
        ("gradcam", ["--layer", "conv1"]),
        ("gradcam++", []),
        ("scorecam", ["--batch-size", "4"]),
    ],
)
def test_attribution_commands(files, capsys, name, more):
    folder, *given = files
    picture = folder / f"{name}.png"
    command = ["visualize", name, *given, "--target", "b", "--output", str(picture)]
    assert main([*command, *more, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads(Path(f"{picture}.json").read_text())
    assert (facts["method"], facts["class"], facts["target"]) == (name, "b", 1)
    options = {
        "smoothgrad": {"samples": 2, "noise": 0.15, "seed": 3},
        "scorecam": {"batch_size": 4},
    }
    known = {"method", "target", "class", "score", "layer", "largest_at", "largest"}
    assert {key: facts[key] for key in facts.keys() - known} == options.get(name, {})
    arrays = np.load(f"{picture}.npz")
    assert arrays["map"].shape == SHAPE[:2]
    assert arrays["map"][tuple(facts["largest_at"])] == pytest.approx(facts["largest"])
    assert ("grid" in arrays) == ("cam" in name) == (facts["layer"] is not None)
    # Three panels, none of them blank.
    pixels = matplotlib.image.imread(picture)[..., :3]
    for panel in np.array_split(pixels[50:-60], 3, axis=1):
        assert np.ptp(panel, axis=(0, 1)).min() > 0.3
    picture.unlink()
    assert main([*command, "--overwrite", "--target", "e"]) == 2
    assert "Unknown class 'e'" in capsys.readouterr().err
    if "cam" in name:
        assert main([*command, "--overwrite", "--layer", "flat"]) == 2
        assert "'flat' has no feature map" in capsys.readouterr().err
    assert not picture.exists()


def test_a_map_of_zeros_is_not_drawn(files, tmp_path, capsys):
    folder, _, image = files
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(2, 3, activation="relu", name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    model.layers[-1].set_weights([np.full((2, 2), -1.0), np.zeros(2)])
    model.save(tmp_path / "m.keras")
    picture = tmp_path / "no.png"
    command = ["visualize", "gradcam", str(tmp_path / "m.keras"), image, "--output", str(picture),
               "--preprocessing", "raw"]  # fmt: skip
    assert main(command) == 1
    assert re.search(r"The gradcam map of class \d is zero for .*image\.png",
                     capsys.readouterr().err)  # fmt: skip
    assert not picture.exists()


def test_maximization_command(files, capsys):
    folder, model, _ = files
    picture = folder / "made.png"
    command = ["visualize", "activation-maximization", model, "--steps", "3", "--output",
               str(picture)]  # fmt: skip
    assert main([*command, "--unit", "c", "0", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [one["unit"] for one in facts["units"]] == [2, 0]
    assert np.load(f"{picture}.npz")["image_2"].shape == SHAPE
    assert matplotlib.image.imread(picture).shape[1] > 400
    assert main([*command, "--unit", "c", "--overwrite"]) == 0
    one = facts["units"][0]
    assert (
        f"unit 2: activation {one['start']:.3g} for the noise at the start,"
        f" {one['activation']:.3g} for the optimized image" in capsys.readouterr().out
    )
    assert main([*command, "--layer", "conv2", "--unit", "8", "--overwrite"]) == 2
    assert "'conv2' has no unit 8" in capsys.readouterr().err


def test_compare_command(files, capsys):
    folder, *given = files
    picture = folder / "compare.png"
    command = ["visualize", "compare", *given, "--output", str(picture), "--samples", "2"]
    assert main([*command, "--methods", "guided", "gradcam", "--down-to", "conv2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert list(facts["rank_correlations"]) == ["conv2"]
    assert list(facts["rank_correlations"]["conv2"]) == ["guided", "gradcam"]
    arrays = np.load(f"{picture}.npz")
    assert set(arrays) == {"guided", "gradcam", "guided_conv2", "gradcam_conv2"}
    x, y = (ranks(np.abs(arrays[name]).ravel()) for name in ("guided", "guided_conv2"))
    expected = np.corrcoef(x, y)[0, 1]
    assert facts["rank_correlations"]["conv2"]["guided"] == pytest.approx(expected, abs=1e-6)
    # Two rows, three columns.
    pixels = matplotlib.image.imread(picture)[..., :3]
    for row in np.array_split(pixels[30:-60], 2):
        for panel in np.array_split(row, 3, axis=1):
            assert np.ptp(panel, axis=(0, 1)).min() > 0.3
    assert (
        main([*command, "--methods", "occlusion", "guided", "--down-to", "conv2", "--overwrite"])
        == 0
    )
    line, header, row = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{picture}: 2 methods for ")
    assert re.split(r"  +", header) == ["random down to", "occlusion", "guided"]
    stage, _, last = re.split(r"  +", row)
    assert stage == "conv2"
    assert float(last) == pytest.approx(facts["rank_correlations"]["conv2"]["guided"], abs=0.005)
    assert main([*command, "--methods", "gradcamm", "--overwrite"]) == 2
    assert "Did you mean gradcam" in capsys.readouterr().err


def test_examples_of_the_page_run(capsys):
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)), {})
    said = capsys.readouterr().out.splitlines()
    assert said == ["(64, 64) (64, 64, 3)", "conv5 (3, 3) (64, 64)", "(2, 2)"]


class NotRebuilt(layers.Layer):
    """A layer of a user that cannot be rebuilt from its configuration."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, x):
        return x * self.scale


@pytest.mark.parametrize("activation", [tf.nn.leaky_relu, tf.nn.relu6, lambda x: x * x])
def test_any_activation_and_layer(image, activation):
    """By hand: the weights are assigned, and the gradient is that of the model itself."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, activation=activation, name="conv")(NotRebuilt(0.01)(inputs))
    logits = layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Softmax()(logits))
    seen = compare_attributions(model, image, ["saliency", "gradcam"], 1, down_to=["conv"], seed=4)
    query = prepare_query(model, image, 1, 1)
    names = ("conv", "logits")
    with shuffled_weights(query, query.classifier.graph.node("conv"), 4):
        shuffled = {name: model.get_layer(name).get_weights() for name in names}
    for name in names:
        model.get_layer(name).set_weights(shuffled[name])
    with tf.GradientTape() as tape:
        pixels = tf.constant(np.asarray(image, np.float32)[None])
        tape.watch(pixels)
        score = keras.Model(inputs, logits)(pixels)[:, 1]
    expected = np.abs(tape.gradient(score, pixels)[0]).max(axis=-1)
    np.testing.assert_allclose(seen.randomized_maps[0][0], expected, rtol=1e-4, atol=1e-9)
    assert not np.allclose(seen.maps[0], expected, rtol=0.01)

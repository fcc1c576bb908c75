"""Second-layer features of models side by side."""

import json

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from cnnkit.cli.main import main
from cnnkit.data import load_dataset
from cnnkit.visualize import second_layer_filters


@pytest.fixture(scope="module")
def coarse():
    """One of three units of the first layer and two of four units of the second are dead."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(3, 4, strides=2, activation="relu", name="conv1")(x)
    x = layers.Conv2D(4, 3, activation="relu", name="conv2")(x)
    model = keras.Model(inputs, x, name="coarse")
    for name, silent in (("conv1", [1]), ("conv2", [0, 3])):
        kernel, bias = model.get_layer(name).get_weights()
        kernel = np.abs(kernel)
        kernel[..., silent] *= 1e-6 if name == "conv1" else -1
        bias[silent] = -1
        model.get_layer(name).set_weights([kernel, bias])
    return model


def test_dead_units_of_both_layers_are_counted(coarse, rng):
    images = rng.uniform(0, 255, (4, 16, 16, 3)).astype("float32")
    seen = second_layer_filters(coarse, images, count=9)
    assert seen.filters.dead.tolist() == [False, True, False]
    assert seen.first_dead_units == (1,)
    assert seen.second_dead_units == (0, 3)
    assert (seen.units, seen.receptive_field.size, seen.receptive_field.stride) == (
        4,
        (8, 8),
        (2, 2),
    )
    # Dead units are not sampled.
    assert [top.unit for top in seen.examples] == [1, 2]
    maps = coarse(images).numpy()
    for top in seen.examples:
        [one] = top.projections
        assert one.activation == pytest.approx(maps[..., top.unit].max(), rel=1e-5)
        assert one.image == maps[..., top.unit].max(axis=(1, 2)).argmax()
    [named] = second_layer_filters(coarse, images, units=[3]).examples
    assert named.projections == ()


def test_the_rule_the_seed_and_the_size_count(coarse, rng):
    images = rng.uniform(0, 255, (3, 17, 17, 3)).astype("float32")
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(3, 4, strides=2, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", bias_initializer="ones", name="conv2")(x)
    model = keras.Model(inputs, x)
    drawn = [
        [one.unit for one in second_layer_filters(model, images, count=2, seed=seed).examples]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    [found] = [second_layer_filters(model, images, units=[1], rule="guided")]
    assert found.examples[0].projections[0].rule == "guided"
    # Where the padding begins depends on the side.
    assert found.receptive_field.image == (17, 17)
    source = load_dataset("digits")
    found = second_layer_filters(
        model, source, units=[1], rule="gradient", image_size=18, batch_size=200
    )
    assert found.examples[0].projections[0].projection.shape == (18, 18, 3)
    assert found.receptive_field.image == (18, 18)


def test_layer2_command(coarse, image_folder, tmp_path, capsys):
    coarse.save(tmp_path / "coarse.keras")
    picture = tmp_path / "second.png"
    command = ["visualize", "layer2", *[str(tmp_path / "coarse.keras")] * 2,
               f"folder:{image_folder}", "--output", str(picture)]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.count("coarse: 1 dead and 1 silent of 3 in conv1, 2 silent of 4 in conv2") == 2
    facts = json.loads((tmp_path / "second.png.json").read_text())
    assert [network["second_silent"] for network in facts["networks"]] == [[0, 3], [0, 3]]
    pixels = matplotlib.image.imread(picture)[..., :3]
    for half in np.array_split(pixels, 2):
        assert np.ptp(half, axis=(0, 1)).min() > 0.3
    assert main([*command, "--overwrite", "--layer", "conv9"]) == 2
    assert "Unknown layer 'conv9'" in capsys.readouterr().err

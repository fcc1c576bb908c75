"""`cnnkit visualize deconvnet`, `rules` and `stack`, and the examples of their page."""

import re
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from cnnkit.cli.main import main

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "deconvnet.md"


@pytest.fixture
def files(tmp_path, rng):
    """A model and an image, as paths."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(6, 3, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = layers.Conv2D(4, 3, activation="relu", name="conv2")(x)
    keras.Model(inputs, x).save(tmp_path / "model.keras")
    keras.utils.save_img(tmp_path / "image.png", rng.uniform(0, 255, (32, 32, 3)))
    return str(tmp_path / "model.keras"), str(tmp_path / "image.png")


def test_rules_are_drawn_in_a_row(files, tmp_path, capsys):
    picture = tmp_path / "rules.png"
    command = ["visualize", "rules", *files, "--layer", "conv1", "conv2", "--output", str(picture)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.count("activation") == 2
    pixels = matplotlib.image.imread(picture)[..., :3]
    # One row a layer: an image and three projections, each with pixels that are not gray or white.
    for top, bottom in ((0.1, 0.45), (0.55, 0.9)):
        row = pixels[int(top * len(pixels)) : int(bottom * len(pixels))]
        for quarter in np.array_split(row, 4, axis=1):
            assert np.ptp(quarter, axis=(0, 1)).min() > 0.2


def test_stack_command(files, tmp_path, capsys):
    picture = tmp_path / "stack.png"
    command = ["visualize", "stack", *files, "--layer", "conv1", "--output", str(picture)]
    assert main(command) == 0
    assert "conv1 unit" in capsys.readouterr().out
    assert picture.exists()
    inputs = keras.Input((32, 32, 3))
    x = layers.Add()([inputs, layers.Conv2D(3, 3, padding="same", activation="relu")(inputs)])
    keras.Model(inputs, layers.Conv2D(2, 3, name="conv1")(x / 255.0)).save(files[0])
    picture.unlink()
    assert main([*command, "--preprocessing", "raw", "--overwrite"]) == 2
    assert "has no step in the layer-by-layer deconvnet" in capsys.readouterr().err
    assert not picture.exists()


def test_an_image_smaller_than_the_network_takes_is_refused(tmp_path, rng, capsys):
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(2, 3, activation="relu", name="conv1")(inputs)
    x = layers.Conv2D(2, 3, activation="relu", name="conv2")(layers.MaxPooling2D(2)(x))
    keras.Model(inputs, x).save(tmp_path / "any.keras")
    keras.utils.save_img(tmp_path / "small.png", rng.uniform(0, 255, (7, 20, 3)))
    picture = tmp_path / "small_seen.png"
    for name, *layer in (("deconvnet", "conv2"), ("rules", "conv1", "conv2"), ("stack", "conv2")):
        command = ["visualize", name, str(tmp_path / "any.keras"), str(tmp_path / "small.png"),
                   "--layer", *layer, "--output", str(picture),
                   "--preprocessing", "raw"]  # fmt: skip
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "7 x 20" in said
        assert said.count("\n") == 1
        assert not picture.exists()


def test_examples_of_the_page_run(capsys):
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)), {})
    assert "['center', 'filter', 'rectify', 'pool']" in capsys.readouterr().out

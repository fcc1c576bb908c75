"""The pictures of the deconvnet, and the examples of its page."""

import json
import re
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from cnnkit.cli.main import main
from cnnkit.errors import UsageError
from cnnkit.figures import draw_layerwise, draw_top9
from cnnkit.visualize import find_top_activations, forward_steps, project_top, top9

PAGE = Path(__file__).resolve().parents[3] / "docs" / "deconvnet.md"


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


def test_stack_is_drawn_with_its_switches(tmp_path, rng):
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(2, 3, activation="relu", name="a")(inputs)
    x = layers.Conv2D(2, 3, name="b")(layers.MaxPooling2D(2, name="pool")(x))
    steps = forward_steps(keras.Model(inputs, x), rng.uniform(0, 255, (1, 16, 16, 3)), "b")
    signal = np.zeros_like(steps[-1].output)
    signal[0, 1, 1, 0] = 1
    draw_layerwise(steps, signal, tmp_path / "stack.png")
    pixels = matplotlib.image.imread(tmp_path / "stack.png")[..., :3]
    red = (pixels[..., 0] > 0.9) & (pixels[..., 1:].max(axis=-1) < 0.1)
    # In both columns, and only in the row of the pooling: the second of four.
    rows, columns = np.nonzero(red)
    height, width = red.shape
    assert (columns < width / 2).any()
    assert (columns > width / 2).any()
    assert height / 4 < rows.min() < rows.max() < height / 2
    with pytest.raises(
        UsageError, match="`signal` must reach the image: the signal that comes back is zero"
    ):
        draw_layerwise(steps, 0 * signal, tmp_path / "none.png")


def test_stack_command(files, tmp_path, capsys):
    picture = tmp_path / "stack.png"
    command = ["visualize", "stack", *files, "--layer", "conv1", "--output", str(picture)]
    # Rescaling is no step of the paper's.
    assert main(command) == 2
    assert "no step of the deconvnet's stack" in capsys.readouterr().err
    assert not picture.exists()


def test_top9_command(files, image_folder, tmp_path, capsys):
    model, _ = files
    picture = tmp_path / "top9.png"
    command = ["visualize", "top9", model, f"folder:{image_folder}", "--layer", "conv2",
               "--output", str(picture), "--unit"]  # fmt: skip
    assert main([*command, "1", "2", "3"]) == 0
    assert "3 units of conv2 over" in capsys.readouterr().out
    pixels = matplotlib.image.imread(picture)[..., :3]
    assert np.ptp(pixels[: len(pixels) // 2], axis=(0, 1)).min() > 0.5
    assert main([*command, "4"]) == 2
    assert "'conv2' has no unit 4" in capsys.readouterr().err
    assert main([*command, "1", "--split", "tset"]) == 2
    assert "Did you mean test" in capsys.readouterr().err


def test_top9_command_draws_every_map_of_several_layers(files, image_folder, tmp_path, capsys):
    model, _ = files
    command = ["visualize", "top9", model, f"folder:{image_folder}", "--layer", "conv1", "conv2",
               "--output", str(tmp_path / "all.png"), "--json"]  # fmt: skip
    assert main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [(one["layer"], len(one["units"])) for one in facts] == [("conv1", 6), ("conv2", 4)]
    assert not (tmp_path / "all.png").exists()
    for one in facts:
        picture = tmp_path / f"all_{one['layer']}.png"
        assert json.loads(Path(f"{picture}.json").read_text()) == one
        arrays = np.load(f"{picture}.npz")
        assert arrays["values"].shape == (len(one["units"]), 9)
        for unit in one["units"]:
            for rank, found in enumerate(unit["strongest"]):
                at = unit["unit"], rank
                assert found["image"] == arrays["images"][at]
                assert found["activation"] == pytest.approx(arrays["values"][at], rel=1e-3)
        assert matplotlib.image.imread(picture).shape[0] > 300


def test_an_image_smaller_than_the_network_takes_is_refused(tmp_path, rng, capsys):
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(2, 3, activation="relu", name="conv1")(inputs)
    x = layers.Conv2D(2, 3, activation="relu", name="conv2")(layers.MaxPooling2D(2)(x))
    keras.Model(inputs, x).save(tmp_path / "any.keras")
    keras.utils.save_img(tmp_path / "small.png", rng.uniform(0, 255, (7, 20, 3)))
    picture = tmp_path / "small_seen.png"
    for name, *layer in (("deconvnet", "conv2"), ("rules", "conv1", "conv2"), ("stack", "conv2")):
        command = ["visualize", name, str(tmp_path / "any.keras"), str(tmp_path / "small.png"),
                   "--layer", *layer, "--output", str(picture)]  # fmt: skip
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "7 x 20" in said
        assert said.count("\n") == 1
        assert not picture.exists()


def test_many_units_are_drawn_small_and_in_order(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(30, 1, use_bias=False, name="c")(inputs))
    kernel = np.zeros((1, 1, 3, 30))
    kernel[..., 0, :29], kernel[..., 1, 29] = 1, 1
    model.set_weights([kernel])
    images = np.full((9, 8, 8, 3), 200.0) - np.arange(9)[:, None, None, None]
    found = find_top_activations(model, images, ["c"])["c"]
    draw_top9(project_top(model, images, found), tmp_path / "c.png", units=30)
    pixels = matplotlib.image.imread(tmp_path / "c.png")[..., :3]
    red, green = (
        np.nonzero(np.abs(pixels - color).max(axis=-1) < 0.03)
        for color in ((1, 0.5, 0.5), (0.5, 1, 0.5))
    )
    # Eight in a row: the last of them is the sixth of the fourth row.
    height, width = pixels.shape[:2]
    assert 5 < 8 * green[1].mean() / width < 6
    assert green[0].min() > 0.7 * height
    assert red[0].min() < 0.2 * height


def test_top9_shows_patches_beside_projections(tmp_path):
    # One unit that sees the red of a pixel; of nine images the first is the reddest.
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1, use_bias=False, name="c")(inputs))
    kernel = np.zeros((1, 1, 3, 2))
    kernel[..., 0, 0] = 1
    model.set_weights([kernel])
    images = np.zeros((9, 8, 8, 3))
    images[np.arange(9), 3, 3, 0] = 255 - np.arange(9)
    tops = top9(model, images, ["c"])["c"]
    assert [one.image for one in tops[0].projections] == list(range(9))
    draw_top9(tops, tmp_path / "c.png")
    pixels = matplotlib.image.imread(tmp_path / "c.png")[..., :3]
    # A red projection is red above gray; right of it are the red patches; the other unit is dead.
    projections, patches = (
        np.nonzero(np.abs(pixels - color).max(axis=-1) < 0.03)[1]
        for color in ((1, 0.5, 0.5), (1, 0, 0))
    )
    assert 0 < projections.min() < projections.max() < patches.min()
    assert patches.max() < pixels.shape[1] / 2


def test_examples_of_the_page_run(capsys):
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)), {})
    assert "['center', 'filter', 'rectify', 'pool']" in capsys.readouterr().out

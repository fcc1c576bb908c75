"""`cnnkit visualize top9`: its figure, facts and arrays."""

import json
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers

from cnnkit.cli.main import main
from cnnkit.data import load_dataset

pytestmark = pytest.mark.usefixtures("unoptimized")


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


def test_top9_command(files, image_folder, tmp_path, capsys):
    model, _ = files
    picture = tmp_path / "top9.png"
    command = ["visualize", "top9", model, f"folder:{image_folder}", "--layer", "conv2",
               "--output", str(picture), "--unit"]  # fmt: skip
    assert main([*command, "1", "2", "3"]) == 0
    assert "3 units of conv2 over" in capsys.readouterr().out
    pixels = matplotlib.image.imread(picture)[..., :3]
    assert np.ptp(pixels[: len(pixels) // 2], axis=(0, 1)).min() > 0.5
    assert main([*command, "4", "--overwrite"]) == 2
    assert "'conv2' has no unit 4" in capsys.readouterr().err
    assert main([*command, "1", "--overwrite", "--split", "tset"]) == 2
    assert "Did you mean test" in capsys.readouterr().err


def test_top9_command_draws_every_map_of_several_layers(files, image_folder, tmp_path, capsys):
    model, _ = files
    command = ["visualize", "top9", model, f"folder:{image_folder}", "--layer", "conv1", "conv2",
               "--output", str(tmp_path / "all.png"), "--rule", "gradient", "--json"]  # fmt: skip
    assert main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [(one["layer"], len(one["units"])) for one in facts] == [("conv1", 6), ("conv2", 4)]
    assert not (tmp_path / "all.png").exists()
    names = load_dataset(f"folder:{image_folder}").splits["test"].names
    for one in facts:
        picture = tmp_path / f"all_{one['layer']}.png"
        assert json.loads(Path(f"{picture}.json").read_text()) == one
        arrays = np.load(f"{picture}.npz")
        assert arrays["values"].shape == (len(one["units"]), 9)
        for unit in one["units"]:
            for rank, found in enumerate(unit["strongest"]):
                at = unit["unit"], rank
                assert found["rule"] == "gradient"
                assert found["image"] == arrays["images"][at]
                assert found["name"] == names[found["image"]]
                assert found["file"] == str(image_folder / found["name"])
                assert found["activation"] == pytest.approx(arrays["values"][at], rel=1e-3)
        assert matplotlib.image.imread(picture).shape[0] > 300

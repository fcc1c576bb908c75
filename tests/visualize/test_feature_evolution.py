"""Units over the epochs of a training run."""

import dataclasses
import json

import keras
import matplotlib.image
import numpy as np
import pytest

from cnnkit import load_model, models
from cnnkit.cli.main import main
from cnnkit.config import TrainingConfig
from cnnkit.data import load_dataset
from cnnkit.errors import RunError, UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training import train
from cnnkit.visualize import feature_evolution
from cnnkit.visualize.top9 import sample_units
from tests.helpers.tiny_network import tiny

CONFIG = TrainingConfig(model="tiny", dataset="digits", image_size=8, epochs=5, batch_size=100,
                        learning_rate=0.1, seed=1, keep_epochs=(1, 2, 3, 5))  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    models.BUILDERS["tiny"] = tiny
    yield train(CONFIG, tmp_path_factory.mktemp("runs") / "run")
    del models.BUILDERS["tiny"]


def test_each_epoch_has_the_strongest_image_of_its_model(run):
    source = load_dataset("digits", seed=1)
    found = feature_evolution(run, source, ["conv1"], units=[4, 0], batch_size=200)["conv1"]
    assert [row.unit for row in found] == [4, 0]
    shown = source.splits["train"]
    # At 8 pixels the images of digits are their own crops.
    images = np.stack([shown.load_image(i).numpy() for i in range(len(shown))]).astype("float32")
    for row in found:
        assert row.epochs == (1, 2, 3, 5)
        for epoch, top in zip(row.epochs, row.examples, strict=True):
            model = load_model(run.kept_epochs[epoch])
            maps = keras.Model(model.input, model.get_layer("conv1").output)(images).numpy()
            best = maps[..., row.unit].max(axis=(1, 2))
            [one] = top.projections
            assert one.activation == pytest.approx(best.max(), rel=1e-5)
            assert best[one.image] == pytest.approx(best.max(), rel=1e-6)
            # One layer below pixels that are scaled: its kernel.
            kernel = model.get_layer("conv1").kernel.numpy()[..., row.unit]
            np.testing.assert_allclose(one.projection[one.box.slices], kernel / 64, atol=1e-7)
    strengths = [top.projections[0].activation for row in found for top in row.examples]
    assert len(set(strengths)) == len(strengths)


def test_units_are_sampled_by_the_seed(run):
    images = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 3)).astype("float32")

    def drawn(seed):
        rows = feature_evolution(run, images, ["conv1", "fc8"], count=3, seed=seed, epochs=[1])
        return [[row.unit for row in rows[layer]] for layer in ("conv1", "fc8")]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert all(len(set(units)) == 3 for units in drawn(0))


def test_each_layer_can_have_units_of_its_own(run):
    images = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 3)).astype("float32")
    chosen = {"conv1": [3], "fc8": [1, 0]}
    rows = feature_evolution(
        run, images, ["conv1", "fc8"], units=chosen, epochs=[1], rule="gradient"
    )
    shown = [one for row in rows["fc8"] for top in row.examples for one in top.projections]
    assert {one.rule for one in shown} == {"gradient"}
    assert {layer: [row.unit for row in found] for layer, found in rows.items()} == chosen
    with pytest.raises(UsageError, match="`units` must name units of layer 'fc8'.*Received: conv1"):
        feature_evolution(run, images, ["conv1", "fc8"], units={"conv1": [3]}, epochs=[1])


def test_epochs_that_were_not_kept_are_an_error(run, tmp_path):
    with pytest.raises(RunError, match=r"Expected: some of 4, 7. Received: 1, 2, 3, 5. Train with"):
        feature_evolution(run, load_dataset("digits"), ["conv1"], epochs=[7, 4])
    none = RunFolder(tmp_path / "none")
    none.create(dataclasses.replace(CONFIG, keep_epochs=()), ["a"], {})
    with pytest.raises(RunError, match="kept no model of its epochs. Received: none at all"):
        feature_evolution(none, load_dataset("digits"), ["conv1"])
    with pytest.raises(UsageError, match="'conv1' has no unit 6. Expected: 0 to 5"):
        feature_evolution(run, np.zeros((2, 8, 8, 3)), ["conv1"], units=[6])
    with pytest.raises(UsageError, match="Unknown layer 'conv2'"):
        feature_evolution(run, np.zeros((2, 8, 8, 3)), ["conv2"])


def test_evolution_command(run, tmp_path, capsys):
    picture = tmp_path / "evolution.png"
    command = ["visualize", "evolution", str(run.path), "--layer", "conv1", "--output",
               str(picture)]  # fmt: skip
    assert main([*command, "--unit", "0", "1", "--epochs", "1", "5", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["epochs"] == [1, 5]
    assert facts["dataset"] == "digits"
    assert [unit["unit"] for unit in facts["units"]] == [0, 1]
    arrays = np.load(f"{picture}.npz")
    assert {"projection_conv1_0_1", "projection_conv1_1_5", "patch_conv1_0_5"} <= set(arrays)
    # Two rows and two columns of colored or gray squares.
    pixels = matplotlib.image.imread(picture)[..., :3]
    inside = np.abs(pixels - 1).max(axis=-1) > 0.02
    assert inside.mean() > 0.3
    drawn = ["--count", "2", "--seed", "3", "--rule", "guided", "--split", "test", "--json"]
    assert main([*command, *drawn, "--overwrite"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [unit["unit"] for unit in facts["units"]] == sample_units(6, 2, 3)
    assert (facts["split"], facts["epochs"]) == ("test", [1, 2, 3, 5])
    assert {one["rule"] for unit in facts["units"] for one in unit["strongest"]} == {"guided"}
    assert main([*command, "--epochs", "4", "--overwrite"]) == 1
    assert "kept no model of these epochs" in capsys.readouterr().err
    assert main([*command, "--unit", "77", "--overwrite"]) == 2
    assert "has no unit 77" in capsys.readouterr().err

"""Recipes against the numbers in the papers; recipes of several stages."""

import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cnnkit import models
from cnnkit.cli.main import main
from cnnkit.config import TrainingConfig
from cnnkit.recipes import RECIPES, Recipe, TrainingStage
from cnnkit.run_folder import RunFolder
from tests.helpers.tiny_network import tiny


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "tiny", tiny)


RECORDED = Path(__file__).resolve().parents[1] / "data" / "recipes.txt"
IMAGENET = 1_281_167
CIFAR10 = 50_000


def test_the_papers_numbers():
    alexnet, vgg, zfnet = (
        RECIPES[name].config for name in ("alexnet-paper", "vgg-d-256", "zfnet-paper")
    )
    for config, batch, epochs, decay in (
        (alexnet, 128, 90, 5e-4), (vgg, 256, 74, 5e-4), (zfnet, 128, 70, 0),
    ):  # fmt: skip
        assert (config.batch_size, config.epochs, config.weight_decay) == (batch, epochs, decay)
        assert (config.learning_rate, config.momentum, config.max_drops) == (0.01, 0.9, 3)
        assert (config.schedule, config.lr_decay) == ("plateau", 0.1)
    # VGG stopped after 370,000 steps.
    assert vgg.epochs * IMAGENET / vgg.batch_size == pytest.approx(370_000, rel=0.002)
    assert (zfnet.max_filter_rms, zfnet.crop) == (0.1, "ten")
    assert (alexnet.mean, alexnet.pca_color, alexnet.scale) == ("pixel", "std", (256, 256))


def fields(config):
    """Returns a line for each field that is not its default."""
    changed = TrainingConfig().differences(config)
    return [f"  {name} = {value!r}" for name, (_, value) in sorted(changed.items())]


def recipes_text():
    lines = []
    for name, recipe in RECIPES.items():
        lines += [f"# {name}", recipe.source, recipe.command, recipe.cost, recipe.result]
        lines += [f"- {one}" for one in recipe.deviations]
        lines += [f"needs {need}: {reason}" for need, reason in recipe.needs.items()]
        lines += fields(recipe.config)
        for stage in recipe.stages:
            lines += [f"stage {stage.name}, follows: {stage.follows}", *fields(stage.config)]
        lines.append("")
    return "\n".join(lines)


def test_the_recipes_are_the_recorded_ones():
    """A published setting stays: what changes shows up in the diff of tests/data/recipes.txt.

    Record it with `python tests/recipes/test_recipes.py --write`.
    """
    assert recipes_text().splitlines() == RECORDED.read_text(encoding="utf-8").splitlines()


def test_caffes_steps_become_epochs():
    caffe = RECIPES["alexnet-caffe"].config
    steps = -(-IMAGENET // 256)
    for drop, step in zip(caffe.lr_milestones, (100_000, 200_000, 300_000, 400_000), strict=True):
        assert (drop - 1) * steps == pytest.approx(step, rel=0.002)
    for name, drops, total in (
        ("cifar10-quick", (4000,), 5000), ("cifar10-full", (60_000, 65_000), 70_000),
    ):  # fmt: skip
        config = RECIPES[name].config
        steps = CIFAR10 // config.batch_size
        assert [(drop - 1) * steps for drop in config.lr_milestones] == list(drops)
        assert config.epochs * steps == total


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete(name, capsys):
    recipe = RECIPES[name]
    assert f"--recipe {name}" in recipe.command
    assert recipe.source and recipe.cost and recipe.result
    for config in (recipe.config, *(part.config for part in recipe.stages)):
        assert TrainingConfig.from_json(config.to_json()) == config
        options = {**config.model_options, **dict.fromkeys(recipe.needs, 8)}
        options.pop("init_from", None)
        side = config.image_size
        with keras.StatelessScope():
            models.build(config.model, input_shape=(side, side, 3), **options)
            keras.utils.clear_session(free_memory=False)
    assert main(["recipes", name]) == 0
    shown = capsys.readouterr().out
    parts = [f"part      {part.name}" for part in recipe.stages]
    for text in (recipe.source, recipe.cost, recipe.result, *recipe.deviations, *parts):
        assert text in shown
    assert main(["recipes", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["model"] == recipe.config.model


def test_the_list_names_all(capsys):
    assert main(["recipes"]) == 0
    width = max(map(len, RECIPES))
    assert capsys.readouterr().out.splitlines() == [
        f"{name:{width}}  {recipe.source}" for name, recipe in RECIPES.items()
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--recipe alexnet-22k", "does not give the filters of the sixth convolution. Expected: "
         "--model-option sixth_conv=VALUE"),
        ("--recipe vgg-d-384", "begins with the weights of vgg-d-256. Expected: --init-from"),
        ("--recipe vgg-d-staged --worker-index 0", "trained by one process"),
        ("--scale 1 2 3", "--scale must be one side, or the smallest and the largest. "
         "Received: 1 2 3"),
        ("--checkpoint-every soon", "steps as in 500, or minutes as in 10m"),
        ("--lr-multiplier x=2 --model tiny --image-size 8", "fits no weights"),
        ("--strategy multiworker", "The strategy multiworker needs --workers or TF_CONFIG"),
        ("--jit-compile --strategy mirrored", "--jit-compile works on one device only"),
        ("--workers a:1,b:2 --worker-index 0 --strategy default",
         "--workers and --worker-index belong to the strategy multiworker"),
        ("--workers a:1,b:2 --strategy multiworker", "an index of 0 to 1"),
    ],
)  # fmt: skip
def test_wrong_words(words, text, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert main(["train", *words.split(), "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


SMALL = TrainingConfig(model="tiny", image_size=8, epochs=2, batch_size=100, learning_rate=0.1)


@pytest.fixture
def chain(monkeypatch):
    other = {"learning_rate": 1e-12, "momentum": 0.0, "seed": 4}
    parts = (
        TrainingStage("first", SMALL),
        TrainingStage("second", TrainingConfig(**{**SMALL.__dict__, **other}), follows=True),
    )
    recipe = Recipe(parts[-1].config, "nowhere", "", "", "", ("it is small",), stages=parts)
    monkeypatch.setitem(RECIPES, "chain", recipe)


def weights(run):
    return keras.saving.load_model(run.model_file).get_weights()


def test_parts_follow_each_other_and_are_resumed(tmp_path, capsys, chain):
    folder = tmp_path / "chain"
    words = ["train", "--output", str(folder)]
    assert main([*words, "--recipe", "chain", "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "part 2 of 2: second" in out
    assert "deviates from the paper: 1 way that `cnnkit recipes chain` lists" in out
    first, second = RunFolder(folder / "first"), RunFolder(folder / "second")
    assert second.config.init_from == str(first.path)
    assert len(first.metrics) == 1
    assert first.environment["deviations"] == ["it is small"]
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)

    assert main(["runs", str(folder), "--json"]) == 0
    shown = [row["run"] for row in json.loads(capsys.readouterr().out)]
    assert shown == [str(first.path), str(second.path)]
    picture = ["plot", str(folder), "--output", str(tmp_path / "curves.png")]
    assert main(picture) == 0
    # The folder of the stages is a run of the last network.
    result = RunFolder(folder)
    assert [line["epoch"] for line in result.metrics] == [1, 2]
    assert result.config.epochs == 2
    assert result.model_file.read_bytes() == second.model_file.read_bytes()
    assert main([*picture, "--kind", "confusion", "--overwrite"]) == 2
    assert f"cnnkit evaluate {folder}" in capsys.readouterr().err

    written = first.model_file.stat().st_mtime_ns
    second.model_file.unlink()
    assert main([*words, "--resume"]) == 0
    assert first.model_file.stat().st_mtime_ns == written
    assert second.model_file.is_file()
    capsys.readouterr()
    assert main([*words, "--recipe", "chain"]) == 2
    assert "--resume continues it" in capsys.readouterr().err


def test_parts_whose_dataset_was_moved_are_resumed(tmp_path, chain, image_folder):
    shutil.copytree(image_folder, tmp_path / "before")
    folder = tmp_path / "chain"
    words = ["train", "--output", str(folder), "--epochs", "1", "--dataset"]
    assert main([*words, f"folder:{tmp_path}/before", "--recipe", "chain"]) == 0
    second = RunFolder(folder / "second")
    second.model_file.unlink()
    (tmp_path / "before").rename(tmp_path / "after")
    assert main([*words, f"folder:{tmp_path}/after", "--resume"]) == 0
    assert second.model_file.is_file()
    assert second.config.dataset == f"folder:{tmp_path}/after"


def test_a_run_keeps_its_deviations_and_its_command(tmp_path, capsys):
    output = tmp_path / "run"
    words = ["--recipe", "demo", "--model", "tiny", "--image-size", "8", "--epochs", "1"]
    assert main(["train", *words, "--output", str(output)]) == 0
    [line] = [one for one in capsys.readouterr().out.splitlines() if one.startswith("deviates")]
    assert "epochs is 1 instead of the recipe's 8; " in line
    assert line.endswith("; 4 other ways that `cnnkit recipes demo` lists")
    kept = RunFolder(output).environment
    assert kept["recipe"] == "demo"
    assert "epochs is 1 instead of the recipe's 8" in kept["deviations"]
    assert {"command", "commit", "seed", "tensorflow", "numpy"} <= set(kept)


def test_training_ends_at_the_error_that_is_asked_for(tmp_path, capsys):
    """Fig. 1's way of counting: epochs until a quarter of the training images are wrong."""
    output = tmp_path / "run"
    words = ["--model", "tiny", "--image-size", "8", "--epochs", "9", "--learning-rate", "0.05"]
    words += ["--stop-at-train-error", "0.25", "--output", str(output)]
    assert main(["train", *words]) == 0
    lines = RunFolder(output).metrics
    assert 1 < len(lines) < 9
    assert [1 - line["accuracy"] <= 0.25 for line in lines] == [False] * (len(lines) - 1) + [True]
    assert main(["train", "--resume", "--output", str(output)]) == 0
    assert len(RunFolder(output).metrics) == len(lines)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/recipes/test_recipes.py --write")
    RECORDED.write_text(recipes_text(), encoding="utf-8")

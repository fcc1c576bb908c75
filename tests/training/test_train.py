"""Training runs as a whole: their folder, their seed, resumed and existing ones."""

import dataclasses
import random
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from cnnkit.cli.main import main
from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training import Callback, checkpoint, get_strategy, train
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG
from tests.helpers.tiny_network import metrics_line, weights_of


def test_a_run_leaves_its_folder(tmp_path):
    run = train(CONFIG, tmp_path / "run")
    assert {path.name for path in run.path.iterdir()} == {
        "config.json", "environment.json", "metrics.jsonl", "checkpoints", "model.keras",
        "labels.txt", "statistics.npz", ".lock",
    }  # fmt: skip
    assert run.config == CONFIG
    assert run.class_names == tuple("0123456789")
    lines = run.metrics
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert set(lines[0]) == {
        "epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate",
        "images_per_second",
    }  # fmt: skip
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.05, 0.05, 0.005])
    assert [line["step"] for line in lines] == [15, 30, 45]
    assert lines[-1]["val_accuracy"] > 0.7
    assert run.environment["dataset"]["images"] == {"train": 1438, "test": 359}
    assert len(list(run.checkpoints.iterdir())) == 2


def test_networks_of_chosen_epochs_are_kept(tmp_path):
    short = dataclasses.replace(CONFIG, epochs=1, keep_epochs=(1, 3, 40))
    run = train(short, tmp_path / "run")
    (run.path / "epochs" / ".aside-99-0003.keras").write_bytes(b"half")
    train(dataclasses.replace(CONFIG, epochs=3, keep_epochs=(2, 3)), run.path, resume=True)
    assert list(run.kept_epochs) == [1, 2, 3]
    assert not list(run.path.rglob(".aside-*"))
    first, second, third = (
        keras.saving.load_model(file).get_weights()[0] for file in run.kept_epochs.values()
    )
    np.testing.assert_array_equal(third, weights_of(run)[0])
    assert np.abs(first - second).max() > 1e-3


def test_the_seed_decides_and_the_callers_generator_is_left_alone(tmp_path):
    state = random.getstate()
    short = dataclasses.replace(CONFIG, epochs=1)
    one, again = (train(short, tmp_path / name) for name in "ab")
    other = train(dataclasses.replace(short, seed=6), tmp_path / "c")
    assert random.getstate() == state
    for a, b in zip(weights_of(one), weights_of(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(weights_of(one)[0] - weights_of(other)[0]).max() > 0.01


def test_resumed_equals_uninterrupted(tmp_path, mirrored):
    """Weights, momentum, order, dropout masks and metrics go on as if nothing had happened."""
    config = dataclasses.replace(
        CONFIG, model_options={"dropout": 0.3}, strategy="mirrored", replicas=2
    )
    whole = train(config, tmp_path / "whole")
    train(dataclasses.replace(config, epochs=1), tmp_path / "parts")
    parts = train(config, tmp_path / "parts", resume=True)
    assert [line["epoch"] for line in parts.metrics] == [1, 2, 3]
    for a, b in zip(whole.metrics, parts.metrics, strict=True):
        for key in set(a) - {"images_per_second"}:
            assert a[key] == pytest.approx(b[key], abs=1e-5)
    for a, b in zip(weights_of(whole), weights_of(parts), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert parts.config == config


def test_a_finished_run_is_left_alone(tmp_path):
    run = train(CONFIG, tmp_path / "run")
    written = run.model_file.stat().st_mtime_ns
    train(CONFIG, run.path, resume=True)
    assert run.model_file.stat().st_mtime_ns == written
    assert len(run.metrics) == 3


def test_existing_runs_are_not_overwritten(tmp_path):
    short = dataclasses.replace(CONFIG, epochs=1)
    run = train(short, tmp_path / "run")
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists. `resume` continues it, `overwrite` starts again"):
        train(short, run.path)
    with pytest.raises(UsageError, match="Unknown model"):
        train(dataclasses.replace(short, model="tinny"), run.path, overwrite=True)
    assert (run.path / "notes.txt").exists()
    train(short, run.path, overwrite=True)
    assert not (run.path / "notes.txt").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="exists and is not a run folder"):
            train(short, other, overwrite=overwrite)
    assert (other / "thesis.tex").read_text() == "years"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"config": {"model": "tiny"}}, "`config` must be a TrainingConfig. Received: dict"),
        ({"output": None}, "`output` must be the path of the run folder. Received: None"),
        ({"output": ""}, "`output` must be the path"),
        ({"callbacks": [print]}, "`callbacks` must be objects of cnnkit.training.Callback"),
        ({"output": "/dev/null/run"}, "/dev/null/run cannot be created in /dev/null"),
    ],
)
def test_arguments_of_another_kind_are_refused_first(tmp_path, arguments, text):
    given = {"config": CONFIG, "output": tmp_path / "run", **arguments}
    with pytest.raises(UsageError, match=text):
        train(**given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("mirored",), "Unknown strategy 'mirored'.*Did you mean mirrored"),
        ((None,), "Unknown strategy None"),
        (("mirrored", 0), "`replicas` must be at least 1. Received: 0"),
        (("mirrored", -2), "`replicas` must be at least 1"),
    ],
)
def test_an_unknown_strategy_is_refused(arguments, text):
    """It was taken for `mirrored`."""
    with pytest.raises(UsageError, match=text):
        get_strategy(*arguments)


def test_the_workers_reach_the_strategy(tmp_path, monkeypatch):
    class Asked(Exception):
        pass

    asked = {}

    def get_strategy(*args, **options):
        asked.update(options)
        raise Asked

    monkeypatch.setattr(sys.modules["cnnkit.training.train"], "get_strategy", get_strategy)
    given = {"workers": ("a:1", "b:1"), "worker_index": 1, "worker_timeout": 3}
    with pytest.raises(Asked):
        train(CONFIG, tmp_path / "run", **given)
    assert asked.items() >= given.items()


def test_a_dataset_without_held_out_images_is_refused_before_training(tmp_path, capsys):
    """With one image of each class nothing is held out; it failed after the first epoch."""
    for name in ("dark", "light"):
        (tmp_path / "images" / name).mkdir(parents=True)
        pixels = np.full((8, 8, 3), 200 if name == "light" else 20, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name / "0.png")
    config = dataclasses.replace(CONFIG, dataset=f"folder:{tmp_path / 'images'}")
    with pytest.raises(DataError, match="no held-out images.*Received: train 2, test 0"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    words = ["train", "--dataset", str(tmp_path / "images"), "--strategy", "default"]
    assert main([*words, "--output", str(tmp_path / "run")]) == 2
    assert f"Did you mean folder:{tmp_path / 'images'}?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [{"resume": True}, {"overwrite": True}])
def test_two_trainings_in_one_folder_are_refused(arguments, tmp_path):
    class Second(Callback):
        def on_epoch_end(self, metrics):
            with pytest.raises(RunError, match="The run folder .* is in use. Received: process "):
                train(CONFIG, tmp_path / "run", **arguments)

    run = train(dataclasses.replace(CONFIG, epochs=2), tmp_path / "run", callbacks=[Second()])
    assert [line["epoch"] for line in run.metrics] == [1, 2]
    resumed = train(CONFIG, run.path, resume=True)
    assert [line["epoch"] for line in resumed.metrics] == [1, 2, 3]


def test_a_folder_that_two_trainings_wrote_can_be_resumed(tmp_path):
    run = train(dataclasses.replace(CONFIG, epochs=2), tmp_path / "run")
    first, second = run.metrics_file.read_text().splitlines()
    run.metrics_file.write_text("\n".join([first, first, second]) + "\n")
    resumed = train(CONFIG, run.path, resume=True)
    assert [line["epoch"] for line in resumed.metrics] == [1, 2, 3]


def test_what_a_resumed_run_may_change(tmp_path):
    cosine = dataclasses.replace(CONFIG, schedule="cosine", lr_milestones=())
    for config in (CONFIG, cosine):
        run = RunFolder(tmp_path / config.schedule)
        run.create(config, ["a"], {})
        free = {"checkpoint_every": "9m", "keep_checkpoints": 9, "keep_epochs": (1,)}
        checkpoint.check_resumable_configuration(run, dataclasses.replace(config, **free))
    # The rates of a cosine depend on the number of epochs.
    with pytest.raises(UsageError, match="another configuration. Received: epochs 3, now 4"):
        checkpoint.check_resumable_configuration(run, dataclasses.replace(cosine, epochs=4))


def test_metrics_that_lack_an_epoch_of_the_checkpoint_are_told(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {})
    run.metrics_file.write_text(metrics_line(1) + metrics_line(2) + metrics_line(3))
    checkpoint.truncate_metrics(run, 2)
    assert [line["epoch"] for line in run.metrics] == [1, 2]
    with pytest.raises(
        RunError, match="lacks epochs before .*lines for the epochs 1 to 3.*2 lines"
    ):
        checkpoint.truncate_metrics(run, 3)
    assert len(run.metrics) == 2

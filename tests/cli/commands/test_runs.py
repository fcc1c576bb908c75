"""Seeing runs: the list, the comparison, curves, the bar, TensorBoard, the profile."""

import io
import json
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cnnkit import models
from cnnkit.cli.main import main
from cnnkit.cli.training_progress import TerminalProgress
from cnnkit.config import TrainingConfig
from cnnkit.run_folder import RunFolder
from cnnkit.training import callbacks
from tests.helpers.tiny_network import tiny


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "tiny", tiny)


def a_run(folder, errors, **fields):
    config = TrainingConfig(epochs=5, **fields)
    run = RunFolder(folder)
    run.create(config, ["a", "b"], {})
    lines = [
        {"epoch": i, "loss": 2.0 / i, "accuracy": 1 - error / 2, "val_loss": 3.0 / i,
         "val_accuracy": 1 - error, "learning_rate": 0.1 if i < 3 else 0.01,
         "images_per_second": 50.0}
        for i, error in enumerate(errors, start=1)
    ]  # fmt: skip
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.fixture
def two(tmp_path):
    folder = tmp_path / "runs"
    one = a_run(folder / "one", [0.5, 0.25, 0.375])
    other = a_run(folder / "deep/two", [0.75, 0.5], learning_rate=0.1, weight_decay_on_biases=True)
    one.model_file.write_bytes(b"")
    return folder, one, other


def test_runs_are_listed_and_compared(two, capsys):
    folder, one, other = two
    assert main(["runs", "--folder", str(folder), "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[str(one.path)] == {
        "run": str(one.path), "model": "alexnet", "dataset": "digits", "epochs": "3/5",
        "finished": "yes", "error": 0.375, "best error": 0.25, "best epoch": 2, "loss": 0.6667,
        "images/s": 50.0,
    }  # fmt: skip
    assert rows[str(other.path)]["finished"] == "no"

    assert main(["runs", str(one.path), str(other.path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["run", str(one.path), str(other.path)]
    assert ["learning_rate", "0.01", "0.1"] in lines
    assert ["weight_decay_on_biases", "False", "True"] in lines
    assert "momentum" not in {line[0] for line in lines}
    assert main(["runs", "--folder", str(folder / "none")]) == 2
    assert "No runs in" in capsys.readouterr().err


def test_curves_are_drawn(two, tmp_path, capsys):
    """A falling curve: ink above on the left, and below on the right, in both panels."""
    _, one, other = two
    picture = tmp_path / "curves.png"
    assert main(["plot", str(one.path), str(other.path), "--output", str(picture)]) == 0
    assert capsys.readouterr().out.strip() == str(picture)
    pixels = np.asarray(Image.open(picture).convert("RGB"), float)
    colors = (pixels.max(-1) - pixels.min(-1)) > 60
    # The legend stands below, as wide as the names are.
    colors = colors[: int(0.75 * len(colors))]
    for panel in np.array_split(colors, 2, axis=1):
        assert panel.sum() > 500
    loss = np.array_split(colors, 2, axis=1)[0]
    columns = np.flatnonzero(loss.any(0))
    left, right = loss[:, columns[:20]], loss[:, columns[-20:]]
    assert np.nonzero(left)[0].mean() < np.nonzero(right)[0].mean()
    for words, text in (
        ([str(one.path), "--output", str(tmp_path / "x.jpg")], "--output must be a PNG file"),
        ([str(tmp_path), "--output", str(picture)], "No run folder"),
        ([str(a_run(tmp_path / "new", []).path), "--output", str(picture)], "no epoch to draw"),
    ):
        assert main(["plot", *words]) == 2
        assert text in capsys.readouterr().err


def test_the_bar_shows_speed_loss_and_the_time_to_come(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = TerminalProgress(io.StringIO())
    for step in (1, 2):
        progress.step(1, step, 3, 50, 1.25)
        progress._bar.refresh()
    text = terminal.getvalue()
    assert "100/150" in text
    assert "images/s" in text
    assert "loss 1.250" in text
    progress.close()


def test_profile_writes_a_profile_and_tells_the_times(tmp_path, capsys):
    output = tmp_path / "run"
    words = ["--model", "tiny", "--image-size", "8", "--epochs", "1", "--strategy", "default"]
    assert main(["train", *words, "--profile", "--output", str(output)]) == 0
    [time] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time: ")]
    for part in ("input", "step", "validation", "checkpoint"):
        assert f"{part} " in time
    assert list((output / "profile").rglob("*.xplane.pb"))


def test_tensorboard_is_told_every_tenth_step_and_every_epoch(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(callbacks.importlib.util, "find_spec", lambda name: types.SimpleNamespace())
    monkeypatch.setattr(
        tf.summary, "scalar", lambda name, value, step: told.append((name, step)), raising=False
    )
    output = tmp_path / "run"
    words = ["--model", "tiny", "--image-size", "8", "--epochs", "2", "--strategy", "default"]
    words += ["--batch-size", "100"]
    assert main(["train", *words, "--tensorboard", "--output", str(output)]) == 0
    # 15 steps an epoch.
    assert [step for name, step in told if name == "step/loss"] == [10, 20, 30]
    assert [step for name, step in told if name == "epoch/val_accuracy"] == [1, 2]
    assert list((output / "tensorboard").glob("events*"))


def test_tensorboard_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(callbacks.importlib.util, "find_spec", lambda name: None)
    words = ["train", "--tensorboard", "--output", str(tmp_path / "run")]
    assert main(words) == 2
    assert 'pip install "cnnkit[tensorboard]"' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

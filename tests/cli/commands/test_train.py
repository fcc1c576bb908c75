"""`cnnkit train`: output, TensorBoard, the profile."""

import json
import sys
import types
from types import SimpleNamespace

import pytest
import tensorflow as tf

from cnnkit import models
from cnnkit.cli.main import main, main_train
from cnnkit.cli.train_runs import _report, free_folder
from cnnkit.training import callbacks
from tests.helpers.images import write_files
from tests.helpers.tiny_network import tiny


@pytest.fixture
def tiny_network(monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "tiny", tiny)


def test_train_prints_a_line_an_epoch(image_folder, tmp_path, capsys):
    options = ["--dataset", f"folder:{image_folder}", "--epochs", "1", "--batch-size", "16"]
    assert main(["train", *options, "--output", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "alexnet, 20,176,258 parameters, 2 classes (above, below); 32 training and 8 held-out"
    )
    assert lines[0].endswith("2 replicas on the CPU")
    # Nobody named a paper's recipe.
    assert len(lines) == 3
    assert lines[-2].startswith("epoch 1/1  loss ")
    assert lines[-1].startswith(f"done: {tmp_path / 'run'}, ")


def test_the_first_line_tells_what_is_left_out(tiny_network, tmp_path, capsys):
    write_files(
        tmp_path / "set", [f"{c}/{s}/{i}.png" for c in "ab" for s in "xy" for i in range(5)]
    )
    write_files(tmp_path / "set", ["a/.DS_Store", "a/x/notes.txt", "b/notes.txt"], b"no image")
    words = ["--dataset", f"folder:{tmp_path / 'set'}", "--model", "tiny", "--image-size", "8"]
    words += ["--epochs", "1", "--strategy", "default", "--output", str(tmp_path / "run")]
    assert main(["train", *words]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert " 2 classes (a, b); 16 training and 4 held-out images; " in first
    assert first.endswith("; 3 files left out: 2 of other types, 1 hidden")
    stored = json.loads((tmp_path / "run" / "environment.json").read_text())["dataset"]
    assert stored["left_out"] == {"of other types": 2, "hidden": 1}


def test_train_json_is_one_document(tiny_network, image_folder, tmp_path, capsys):
    options = ["--dataset", f"folder:{image_folder}", "--epochs", "1", "--batch-size", "16"]
    options += ["--model", "tiny", "--image-size", "8"]
    assert main(["train", *options, "--json", "--output", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["epoch"] == 1
    assert document["run"] == str(tmp_path / "run")
    assert "epoch 1/1" in captured.err


def test_an_unused_name_in_runs_is_chosen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(free_folder("demo")) == "runs/demo"
    (tmp_path / "runs/demo").mkdir(parents=True)
    assert str(free_folder("demo")) == "runs/demo-2"
    (tmp_path / "runs/demo-2").mkdir()
    assert str(free_folder("demo")) == "runs/demo-3"


def finished(path, result, *, best=False, epochs=4):
    progress = SimpleNamespace(result=result, restores_best=best, lines=[None] * epochs)
    return SimpleNamespace(path=path, result=result, progress=progress)


def test_the_line_at_the_end_of_a_training(capsys):
    """The error of the network that was kept, and of which epoch it is where that may be asked."""
    result = {"epoch": 3, "val_accuracy": 0.875}
    for runs, lines in (
        ([finished("a", result)], ["done: a, 12.5% error on the held-out images"]),
        ([finished("a", result, best=True)],
         ["done: a, 12.5% error on the held-out images, the lowest of 4 epochs"]),
        ([finished("a", {**result, "epoch": 0}, best=True)],
         ["done: a, 12.5% error on the held-out images, that of the network before training"]),
        ([finished("a", None)], ["done: a, the network before training"]),
        ([finished("a", result), finished("b", None)],
         ["done: a, 12.5% error on the held-out images after 3 epochs",
          "done: b, the network before training"]),
    ):  # fmt: skip
        _report(runs, as_json=False)
        assert capsys.readouterr().out.splitlines() == lines
    _report([finished("a", result), finished("b", None)], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"run": "a", **result}, {"run": "b"}]


def test_cnnkit_train_is_a_command_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cnnkit-train", "--recipe", "none"])
    assert main_train() == 2
    assert "Unknown recipe 'none'" in capsys.readouterr().err


def test_profile_writes_a_profile_and_prints_the_times(tiny_network, tmp_path, capsys):
    output = tmp_path / "run"
    words = ["--model", "tiny", "--image-size", "8", "--epochs", "1", "--strategy", "default"]
    assert main(["train", *words, "--profile", "--output", str(output)]) == 0
    [time] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time: ")]
    for part in ("input", "step", "validation", "checkpoint"):
        assert f"{part} " in time
    assert list((output / "profile").rglob("*.xplane.pb"))


def test_tensorboard_gets_every_tenth_step_and_every_epoch(tiny_network, tmp_path, monkeypatch):
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


def test_tensorboard_that_is_missing_is_named(tiny_network, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(callbacks.importlib.util, "find_spec", lambda name: None)
    words = ["train", "--tensorboard", "--output", str(tmp_path / "run")]
    assert main(words) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

"""Progress of a run: the network before training counts, also where only a checkpoint knows it."""

import json

import pytest

from cnnkit import run_folder
from cnnkit._html.run_summary import progress_rows, run_summary
from cnnkit.cli.commands.runs import summarize_run
from cnnkit.run_folder import RunFolder
from cnnkit.training.checkpoint import TrainingState, save_checkpoint
from tests.helpers.run_folders import write_metrics_run


def write_run(folder, *, since_best, best=0.875, epochs=2, step=20, **fields):
    """Writes a run that began with trained weights, without initial.json, and its checkpoint."""
    options = {"restore_best": True, "init_from": "weights.keras", **fields}
    run = write_metrics_run(folder, [0.5, 0.25], **options)
    state = TrainingState(
        epochs=epochs, best_accuracy=best, best_loss=0.5, epochs_since_best=since_best
    )
    save_checkpoint(run.checkpoints, step, state, [])
    return run


def test_a_checkpoint_tells_that_the_network_before_training_was_the_best(tmp_path):
    run = write_run(tmp_path, since_best=2)
    expected = {"epoch": 0, "val_accuracy": 0.875, "val_loss": 0.5}
    assert run.initial == run.best == run.result == expected
    assert dict(progress_rows(run))["best error"] == "12.50% before training"
    row = summarize_run(run)
    assert (row["best_error"], row["best_epoch"], row["error"]) == (0.125, 0, 0.25)
    # What stands in the file counts, once there is one.
    run.write_initial(0.5, 1.0)
    assert (run.initial["val_accuracy"], run.result["epoch"]) == (0.5, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"since_best": 0, "best": 0.75},
        {"since_best": 1, "best": 0.5},
        {"since_best": 2, "best": None},
        {"since_best": 2, "init_from": None},
        {"since_best": 2, "restore_best": False},
    ],
)
def test_a_later_epoch_is_the_best_one_otherwise(tmp_path, fields):
    run = write_run(tmp_path, **fields)
    assert run.initial is None
    assert (run.best["epoch"], run.result["epoch"]) == (2, 2)
    assert not run.progress.lacks_initial


def test_a_damaged_checkpoint_leaves_it_to_the_one_before(tmp_path):
    run = write_run(tmp_path, since_best=1, epochs=1, step=10)
    (run.checkpoints / "step-000000020.npz").write_bytes(b"damaged")
    assert run.result["epoch"] == 0


def test_what_no_file_tells_is_said(tmp_path):
    run = write_run(tmp_path, since_best=2)
    for file in run.checkpoints.iterdir():
        file.unlink()
    assert run.progress.lacks_initial
    expected = "25.00% after epoch 2; that before training is not recorded"
    assert dict(progress_rows(run))["best error"] == expected
    assert expected in run_summary(run)
    # A folder of stages begins with an untrained classifier.
    (tmp_path / "parts.json").write_text(json.dumps([]))
    assert not run.progress.lacks_initial


@pytest.mark.parametrize("summarize", [summarize_run, progress_rows, run_summary])
def test_a_summary_reads_the_metrics_once(tmp_path, monkeypatch, summarize):
    run = write_run(tmp_path, since_best=2)
    read, files = run_folder.read_metrics, []
    monkeypatch.setattr(run_folder, "read_metrics", lambda file: files.append(file) or read(file))
    summarize(RunFolder(run.path))
    assert files == [run.metrics_file]


def test_the_newest_checkpoint_tells_what_was_before_training(tmp_path):
    run = write_run(tmp_path, since_best=2, best=0.875)
    older = TrainingState(epochs=1, best_accuracy=0.75, best_loss=0.5, epochs_since_best=1)
    save_checkpoint(run.checkpoints, 10, older, [])
    assert run.initial["val_accuracy"] == 0.875

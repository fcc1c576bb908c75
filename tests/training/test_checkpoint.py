"""Nothing is lost: killed and stopped runs, torn checkpoints, a full disk, wrong resumptions."""

import contextlib
import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.cli.main import main
from cnnkit.errors import CnnkitError, DataError, RunError, UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training import checkpoint, train
from cnnkit.training.checkpoint import MetricTotals, TrainingState
from cnnkit.training.schedule import PlateauState
from tests.helpers.processes import Processes
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG
from tests.helpers.tiny_network import weights_of

# 15 steps an epoch, the last one of fewer images.
WORDS = [
    "--model", "tiny", "--model-option", "dropout=0.3", "--image-size", "8", "--epochs", "4",
    "--batch-size", "100", "--learning-rate", "0.3", "--schedule", "plateau", "--patience", "1",
    "--strategy", "default", "--deterministic", "--checkpoint-every", "4", "--keep-best",
    "--keep-epochs", "1", "3",
]  # fmt: skip
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """Runs `cnnkit train` in a process of its own that something happens to."""
    return Processes(tmp_path_factory.mktemp("logs")).train


@pytest.fixture(scope="module")
def whole(process, tmp_path_factory):
    """The run that nothing happens to."""
    output = tmp_path_factory.mktemp("whole") / "run"
    done = process(output, *WORDS)
    assert done.returncode == 0, done.stderr
    return RunFolder(output)


def assert_same(run, whole):
    """Weights to the last bit, the networks that were kept, and the metrics but for the time."""
    networks = [[r.model_file, r.best_file, *r.kept_epochs.values()] for r in (run, whole)]
    for files in zip(*networks, strict=True):
        one, other = (keras.saving.load_model(file).get_weights() for file in files)
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    timeless = [
        [{k: v for k, v in line.items() if k != "images_per_second"} for line in r.metrics]
        for r in (run, whole)
    ]
    assert timeless[0] == timeless[1]
    assert [line["epoch"] for line in run.metrics] == list(range(1, run.config.epochs + 1))
    assert run.metrics_file.read_text().count("\n") == run.config.epochs


def test_a_resumed_run_begins_in_the_middle_of_an_epoch(tmp_path, process, whole):
    """Killed twice, with a torn checkpoint in between: bit for bit the uninterrupted run."""
    run = RunFolder(tmp_path / "run")
    assert process(run.path, *WORDS, at=11).returncode == KILLED
    # Checkpoints after the steps 4 and 8; the newer one is torn, so step 5 comes again.
    files = checkpoint.checkpoints_newest_first(run.checkpoints)
    assert [file.name for file in files] == ["step-000000008.npz", "step-000000004.npz"]
    files[0].write_bytes(files[0].read_bytes()[:-700])
    again = process(run.path, "--resume", at=31)
    assert again.returncode == KILLED
    assert "going on with epoch 1, step 5" in again.stdout
    last = process(run.path, "--resume")
    assert last.returncode == 0, last.stderr
    assert "going on with epoch 3, step 5" in last.stdout
    assert_same(run, whole)
    assert len({line["learning_rate"] for line in whole.metrics}) > 1


def test_signals_keep_the_state_and_say_how_to_go_on(tmp_path, process, whole):
    run = RunFolder(tmp_path / "run")
    stopped = process(run.path, *WORDS, what="TERM", at=6)
    assert stopped.returncode == 143
    assert stopped.stderr == (
        "cnnkit: Stopped by SIGTERM after step 7 of epoch 1; everything up to there is kept. "
        f"Go on with: cnnkit train --resume --output {run.path}.\n"
    )
    interrupted = process(run.path, "--resume", what="INT", at=12)
    assert interrupted.returncode == 130
    assert "going on with epoch 1, step 8" in interrupted.stdout
    assert "Stopped by SIGINT after step 4 of epoch 2" in interrupted.stderr
    assert process(run.path, "--resume").returncode == 0
    assert_same(run, whole)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, process, whole):
    run = RunFolder(tmp_path / "run")
    full = process(run.path, *WORDS, what="FULL", at=5)
    assert full.returncode == 1
    assert "step-000000008.npz could not be written. Received: File too large" in full.stderr
    assert full.stderr.count("\n") == 1
    files = sorted(path.name for path in run.checkpoints.iterdir())
    assert files == ["step-000000004.npz"]
    assert process(run.path, "--resume").returncode == 0
    assert_same(run, whole)


@pytest.mark.slow
def test_killed_thirty_times_at_random(tmp_path, process, whole):
    """At any moment: in a step, in validation, while a checkpoint is being written."""
    chance = random.Random(0)
    hits = ends = 0
    while hits < 30:
        run = RunFolder(tmp_path / f"run{ends}")
        done = process(run.path, *WORDS, what="KILL+0.0", at=chance.randint(1, 5))
        while done.returncode == KILLED and hits < 30:
            hits += 1
            what = f"KILL+{chance.uniform(0, 0.03):.4f}"
            done = process(run.path, "--resume", what=what, at=chance.randint(1, 5))
        if done.returncode == KILLED:
            done = process(run.path, "--resume")
        assert done.returncode == 0, done.stderr
        assert_same(run, whole)
        ends += 1
    print(f"{hits} kills, {ends} runs compared")


def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path):
    run = train(CONFIG, tmp_path / "run")
    before = weights_of(run)
    newest = run.checkpoints / "step-000000045.npz"
    newest.write_bytes(newest.read_bytes()[:1000])
    run.model_file.unlink()
    train(CONFIG, run.path, resume=True)
    assert [line["epoch"] for line in run.metrics] == [1, 2, 3]
    for a, b in zip(before, weights_of(run), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_new_epoch_counts_from_zero():
    state = TrainingState(epochs=1, step=5, totals=MetricTotals(3, 4.0, 2.0, 1.0))
    state.next_epoch()
    assert state == TrainingState(epochs=2, step=0, totals=MetricTotals(0, 0.0, 0.0, 0.0))


def test_the_best_epoch_has_the_highest_accuracy_and_then_the_lowest_loss():
    state = TrainingState()
    found = [state.update_best(*one) for one in ((0.8, 0.5), (0.8, 0.5), (0.8, 0.4), (0.7, 0.1))]
    assert found == [True, False, True, False]
    assert (state.best_accuracy, state.best_loss, state.epochs_since_best) == (0.8, 0.4, 1)


@pytest.mark.parametrize(
    ("part", "name"),
    [(None, "best_loss"), ("totals", "right"), ("totals", "seconds"), ("totals", "images"),
     ("plateau", "waited")],
)  # fmt: skip
def test_a_negative_number_of_a_state_is_refused(part, name):
    fields = TrainingState(best_loss=0.0).to_dict()
    (fields[part] if part else fields)[name] = -1
    with pytest.raises(DataError, match=f"{name}.*(at least|integer from) 0"):
        TrainingState.from_dict(fields)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_an_accuracy_out_of_range_is_refused(value):
    state = TrainingState(best_accuracy=1.0, plateau=PlateauState(best=0.0))
    assert TrainingState.from_dict(state.to_dict()) == state
    fields = state.to_dict()
    for part, name in ((fields, "best_accuracy"), (fields["plateau"], "best")):
        right, part[name] = part[name], value
        with pytest.raises(DataError, match=f"{name}.*a finite number of at least 0 of at most 1"):
            TrainingState.from_dict(fields)
        part[name] = right


@pytest.mark.parametrize(
    "state",
    [
        b"{}", b"", b"[]", b"{", b"\xff", b"[" * 9999, b'{"epochs": -1}', b'{"epochs": "three"}',
        b'{"epochs": 3, "step": 0, "totals": {}, "plateau": {}, "reached": false}',
    ],
)  # fmt: skip
def test_a_state_that_is_damaged_falls_back_too(state, tmp_path):
    variables = [keras.Variable(np.zeros(3), name="a")]
    good = TrainingState(epochs=1)
    checkpoint.save_checkpoint(tmp_path, 1, good, variables)
    file = checkpoint.save_checkpoint(tmp_path, 2, TrainingState(epochs=2), variables)
    with np.load(file) as archive:
        arrays = dict(archive)
    np.savez(file, **{**arrays, "state": np.frombuffer(state, np.uint8)})
    messages = []
    found = checkpoint.restore_checkpoint(tmp_path, variables, report=messages.append)
    assert found == good
    [message] = messages
    assert message.startswith("a checkpoint is damaged, and the one before it is used: ")
    assert "step-000000002.npz" in message


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_damaged_checkpoints_are_refused_or_hold_a_state(data):
    variables = [keras.Variable(np.zeros(3), name="a")]
    with tempfile.TemporaryDirectory() as name:
        file = checkpoint.save_checkpoint(Path(name), 1, TrainingState(epochs=1), variables)
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        with contextlib.suppress(CnnkitError):
            checkpoint.restore_checkpoint(Path(name), variables)


def test_without_a_readable_checkpoint_nothing_is_trained_or_deleted(tmp_path):
    """It began again with the first epoch, and deleted the metrics."""
    run = train(dataclasses.replace(CONFIG, epochs=2), tmp_path / "run")
    for file in run.checkpoints.iterdir():
        file.write_bytes(b"torn")
    with pytest.raises(RunError, match="No checkpoint in .* can be read. Received: step-.*, step-"):
        train(CONFIG, run.path, resume=True)
    assert [line["epoch"] for line in run.metrics] == [1, 2]


def test_a_torn_network_of_a_finished_run_is_written_again(tmp_path, capsys):
    config = dataclasses.replace(CONFIG, epochs=1, keep_best=True, keep_epochs=(1,))
    run = train(config, tmp_path / "run")
    weights, stored = weights_of(run), run.model_file.read_bytes()
    changed = bytearray(stored)
    changed[len(stored) // 2] ^= 255
    words = ["train", "--resume", "--output", str(run.path)]
    for torn in (b"", stored[:-100], bytes(changed), b"\0" * len(stored)):
        run.model_file.write_bytes(torn)
        assert main(words) == 0
        assert "model.keras is damaged; it is written again" in capsys.readouterr().out
        for a, b in zip(weights, weights_of(run), strict=True):
            np.testing.assert_array_equal(a, b)
    for file in (run.best_file, run.epoch_file(1)):
        file.write_bytes(b"")
    assert main(words) == 0
    lines = capsys.readouterr().out
    assert f"{run.best_file} is damaged, and its weights are not stored elsewhere" in lines
    assert f"{run.epoch_file(1)} is damaged" in lines


def test_a_kill_before_the_network_of_a_longer_run_was_saved(tmp_path, monkeypatch):
    """The network of the shorter run was there, and stayed."""
    run = train(dataclasses.replace(CONFIG, epochs=1), tmp_path / "run")
    longer = dataclasses.replace(CONFIG, epochs=2)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sys.modules[train.__module__], "save_result", killed)
        train(longer, run.path, resume=True)
    before = weights_of(run)
    train(longer, run.path, resume=True)
    assert np.abs(weights_of(run)[0] - before[0]).max() > 1e-3


def test_a_disk_that_is_read_only_is_named(tmp_path, monkeypatch):
    run = train(dataclasses.replace(CONFIG, epochs=1), tmp_path / "run")
    (run.checkpoints / ".aside-99-step-000000030.npz").write_bytes(b"half")

    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("unlink", "rmdir", "mkdir", "replace", "rename"):
        monkeypatch.setattr(os, name, refuse)
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(RunError, match="could not be written. Received: Read-only file system"):
        train(CONFIG, run.path, resume=True)


def test_what_a_killed_process_leaves_is_cleared_away(tmp_path):
    """A half-written checkpoint, a torn line of metrics; a run that 0.1.0 began to create."""
    run = train(dataclasses.replace(CONFIG, epochs=1), tmp_path / "run")
    (run.checkpoints / ".aside-99-step-000000030.npz").write_bytes(b"half")
    with run.metrics_file.open("a") as file:
        file.write('{"epoch": 2, "lo')
    train(CONFIG, run.path, resume=True)
    assert [line["epoch"] for line in run.metrics] == [1, 2, 3]
    assert not list(run.path.rglob(".aside-*"))

    begun = tmp_path / "begun"
    (begun / "checkpoints").mkdir(parents=True)
    (begun / "labels.txt").write_text("a\n")
    assert len(train(dataclasses.replace(CONFIG, epochs=1), begun, overwrite=True).metrics) == 1


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    good = [keras.Variable(np.zeros(3), name="a")]
    checkpoint.save_checkpoint(tmp_path, 1, TrainingState(), good)
    for value in (np.nan, np.inf):
        wrong = [*good, keras.Variable(np.array([1.0, value]), name="b")]
        with pytest.raises(checkpoint.DivergedError, match=r"no longer finite at step 2 \(b\)"):
            checkpoint.save_checkpoint(tmp_path, 2, TrainingState(), wrong)
    assert [file.name for file in tmp_path.iterdir()] == ["step-000000001.npz"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    checkpoint.save_checkpoint(
        tmp_path, 1, TrainingState(), [keras.Variable(np.zeros(3), name="a")]
    )
    with pytest.raises(RunError, match="step-000000001.npz is of another network"):
        checkpoint.restore_checkpoint(tmp_path, [keras.Variable(np.zeros(4), name="a")])


def test_resume_with_another_configuration_names_the_fields(tmp_path):
    run = train(dataclasses.replace(CONFIG, epochs=2), tmp_path / "run")
    with pytest.raises(UsageError) as error:
        train(dataclasses.replace(CONFIG, learning_rate=0.1, seed=9), run.path, resume=True)
    text = str(error.value)
    assert "learning_rate 0.05, now 0.1; seed 5, now 9" in text
    assert "batch_size" not in text
    with pytest.raises(UsageError, match="epochs of at least 2"):
        train(dataclasses.replace(CONFIG, epochs=1), run.path, resume=True)
    with pytest.raises(UsageError, match="No run folder"):
        train(CONFIG, tmp_path / "none", resume=True)


def test_a_run_whose_dataset_was_moved_is_resumed(tmp_path, image_folder, capsys, unoptimized):
    before, after = tmp_path / "before", tmp_path / "elsewhere" / "after"
    shutil.copytree(image_folder, before)
    config = dataclasses.replace(CONFIG, dataset=f"folder:{before}", epochs=2, deterministic=True)
    whole = train(config, tmp_path / "whole")
    run = train(dataclasses.replace(config, epochs=1), tmp_path / "run")
    after.parent.mkdir()
    before.rename(after)
    resume = ["train", "--resume", "--output", str(run.path), "--epochs", "2"]
    assert main(resume) == 2
    assert "No folder" in (error := capsys.readouterr().err) and "give its new path" in error
    assert main([*resume, "--dataset", f"folder:{after}"]) == 0
    assert run.config.dataset == f"folder:{after}"
    for a, b in zip(weights_of(whole), weights_of(run), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(RunError, match="folder:.*test is not that of the run .*`dataset`"):
        other = shutil.copytree(after / "above", tmp_path / "test" / "above")
        shutil.copytree(other, tmp_path / "test" / "below")
        train(dataclasses.replace(config, dataset=f"folder:{tmp_path}/test"), run.path, resume=True)


def test_resume_with_a_changed_dataset_is_refused(tmp_path, image_folder, unoptimized):
    images = shutil.copytree(image_folder, tmp_path / "images")
    config = dataclasses.replace(CONFIG, dataset=f"folder:{images}", epochs=1)
    run = train(config, tmp_path / "run")
    (images / "above" / "00.jpg").unlink()
    with pytest.raises(RunError, match="is not that of the run .* or has changed since"):
        train(dataclasses.replace(config, epochs=2), run.path, resume=True)


def test_the_state_in_a_checkpoint_has_the_keys_of_0_1_0():
    totals = MetricTotals(images=300, loss=12.5, correct=200.0, seconds=0.1)
    state = TrainingState(2, 3, totals, PlateauState(0.5, 1, 2), best_accuracy=0.75)
    stored = json.loads(json.dumps(state.to_dict()))
    assert stored == {
        "epochs": 2,
        "step": 3,
        "totals": {"images": 300, "loss": 12.5, "right": 200.0, "seconds": 0.1},
        "plateau": {"best": 0.5, "waited": 1, "drops": 2},
        "best_accuracy": 0.75,
        "reached": False,
        # Not in 0.1.0, and not needed in what is read.
        "best_loss": None,
        "epochs_since_best": 0,
    }
    assert TrainingState.from_dict(stored) == state
    del stored["best_loss"], stored["epochs_since_best"]
    assert TrainingState.from_dict(stored) == state

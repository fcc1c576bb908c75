"""Nothing is lost: killed and stopped runs, torn checkpoints, a full disk."""

import random
import signal

import keras
import numpy as np
import pytest

from cnnkit.run_folder import RunFolder
from cnnkit.training import checkpoint
from tests.helpers.processes import processes

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
    with processes(tmp_path_factory.mktemp("logs")) as parent:
        yield parent.train


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
def test_killed_twenty_times_at_random(tmp_path, process, whole):
    """At any moment: in a step, in validation, while a checkpoint is being written."""
    chance = random.Random(0)
    run = RunFolder(tmp_path / "run")
    done = process(run.path, *WORDS, what="KILL+0.0", at=2)
    assert done.returncode == KILLED
    for _ in range(19):
        what = f"KILL+{chance.uniform(0, 0.03):.4f}"
        done = process(run.path, "--resume", what=what, at=chance.randint(1, 5))
        assert done.returncode in (0, KILLED), done.stderr
    assert process(run.path, "--resume").returncode == 0
    assert_same(run, whole)

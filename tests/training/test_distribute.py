"""Two worker processes on loopback against one process: same weights, one run folder."""

import socket

import keras
import numpy as np
import pytest

from cnnkit.run_folder import RunFolder
from tests.helpers.processes import processes

# 15 steps an epoch, the last one of 38 images, on 2 workers.
WORDS = [
    "--model", "tiny", "--image-size", "8", "--epochs", "2", "--batch-size", "100",
    "--learning-rate", "0.1", "--checkpoint-every", "4",
]  # fmt: skip
KILLED = -9


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    with processes(tmp_path_factory.mktemp("logs")) as parent:
        yield parent


def workers(parent, folder, *words, what=("KILL", "KILL"), at=(0, 0), words_of_second=()):
    """Runs two; each has an --output of its own, as without a common disk."""
    with socket.socket() as one, socket.socket() as two:
        for one_socket in (one, two):
            one_socket.bind(("127.0.0.1", 0))
        addresses = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in (one, two))
    shared = ["train", "--strategy", "multiworker", "--workers", addresses]
    jobs = []
    for i in (0, 1):
        own = ["--index", i, "--output", folder / str(i)]
        extra = words_of_second if i == 1 and words_of_second else words
        jobs.append(([*shared, *own, *extra], what[i], at[i]))
    return parent.run(*jobs)


def weights(run):
    return keras.saving.load_model(run.model_file).get_weights()


@pytest.fixture(scope="module")
def alone(parent, tmp_path_factory):
    output = tmp_path_factory.mktemp("alone") / "run"
    assert parent.train(output, *WORDS, "--strategy", "default").returncode == 0
    return RunFolder(output)


def assert_near(run, alone):
    for a, b in zip(weights(run), weights(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(run.metrics, alone.metrics, strict=True):
        for key in set(a) - {"images_per_second"}:
            assert a[key] == pytest.approx(b[key], abs=1e-5)


def test_two_workers_equal_one_process(parent, alone, tmp_path):
    first, second = workers(parent, tmp_path, *WORDS)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert_near(RunFolder(tmp_path / "0"), alone)
    assert not (tmp_path / "1").exists()
    assert "2 replicas on the CPU" in first.stdout


def test_a_worker_that_dies_stops_the_other_and_both_go_on(parent, alone, tmp_path):
    """Killed in the second epoch; the second worker has no run folder and hears where to go on."""
    first, second = workers(parent, tmp_path, *WORDS, at=(0, 21))
    assert second.returncode == KILLED
    assert first.returncode == 1
    assert "Worker 0 stops: another of the 2 workers no longer answers" in first.stderr
    assert "--resume" in first.stderr
    run = RunFolder(tmp_path / "0")
    assert len(run.metrics) == 1
    first, second = workers(parent, tmp_path, "--resume", words_of_second=WORDS)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "going on with epoch 2, step 5" in first.stdout
    assert_near(run, alone)


def test_workers_with_different_configurations_stop(parent, tmp_path):
    other = [*WORDS, "--seed", "9"]
    first, second = workers(parent, tmp_path, *WORDS, words_of_second=other)
    assert (first.returncode, second.returncode) == (1, 1)
    assert "Worker 1 was started with another configuration" in second.stderr
    assert "no longer answers" in first.stderr
    assert not (tmp_path / "0").exists()

"""Replicas and worker processes: two on loopback against one, one run folder."""

import socket

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.errors import RunError, UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training import get_strategy
from cnnkit.training.distribute import (
    local_results,
    process_index_and_count,
    replica_devices,
    shard_batch,
    sum_over_replicas,
    translate_worker_loss,
    update_replicas,
)
from tests.helpers.processes import Processes

# 15 steps an epoch, the last one of 38 images, on 2 workers.
WORDS = [
    "--model", "tiny", "--image-size", "8", "--epochs", "2", "--batch-size", "100",
    "--learning-rate", "0.1", "--checkpoint-every", "4",
]  # fmt: skip
KILLED = -9


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return Processes(tmp_path_factory.mktemp("logs"))


def workers(parent, folder, *words, what=("KILL", "KILL"), at=(0, 0), words_of_second=()):
    """Runs two; each has an --output of its own, as without a common disk."""
    with socket.socket() as one, socket.socket() as two:
        for one_socket in (one, two):
            one_socket.bind(("127.0.0.1", 0))
        addresses = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in (one, two))
    shared = ["train", "--strategy", "multiworker", "--workers", addresses]
    jobs = []
    for i in (0, 1):
        own = ["--worker-index", i, "--output", folder / str(i)]
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
    """Killed in the second epoch; the second worker has no run folder and receives the state."""
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


def test_a_signal_to_one_worker_stops_all_of_them_at_the_same_step(parent, alone, tmp_path):
    """In the middle of an epoch to the second one, and in validation to the first one."""
    first, second = workers(parent, tmp_path, *WORDS, what=("KILL", "TERM"), at=(0, 6))
    assert (first.returncode, second.returncode) == (143, 143), first.stderr + second.stderr
    kept = "after step 9 of epoch 1; everything up to there is kept. All 2 workers stopped there"
    assert f"Stopped by a signal to another worker {kept}" in first.stderr
    assert f"Stopped by SIGTERM {kept}: start all of them again with --resume." in second.stderr
    first, second = workers(
        parent, tmp_path, "--resume", words_of_second=WORDS, what=("INT", "KILL"), at=(6, 0)
    )
    assert (first.returncode, second.returncode) == (130, 143), first.stderr + second.stderr
    assert "going on with epoch 1, step 10" in first.stdout
    assert "Stopped by SIGINT after step 15 of epoch 1" in first.stderr
    first, second = workers(parent, tmp_path, "--resume", words_of_second=WORDS)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert_near(RunFolder(tmp_path / "0"), alone)


def test_workers_with_different_configurations_stop(parent, tmp_path):
    other = [*WORDS, "--seed", "9"]
    first, second = workers(parent, tmp_path, *WORDS, words_of_second=other)
    assert (first.returncode, second.returncode) == (1, 1)
    assert "Worker 1 was started with another configuration" in second.stderr
    assert "no longer answers" in first.stderr
    assert not (tmp_path / "0").exists()


def test_strategies_are_made_once(mirrored):
    assert get_strategy("mirrored", 2) is mirrored
    assert get_strategy("default").num_replicas_in_sync == 1
    with pytest.raises(
        UsageError, match="split into 16 replicas only before TensorFlow is first used"
    ):
        get_strategy("mirrored", 16)


def test_a_batch_is_divided_and_gathered(mirrored):
    rows = np.arange(6, dtype=np.float32)
    sharded = shard_batch({"rows": tf.constant(rows)}, mirrored)
    found = mirrored.run(lambda batch: batch["rows"] * 2, args=(sharded,))
    parts = [part.numpy().tolist() for part in local_results(mirrored, found)]
    assert parts == [[0, 2, 4], [6, 8, 10]]
    assert replica_devices(mirrored) == ["CPU", "CPU"]


def test_low_level_calls_sum_over_replicas_and_update_every_copy(mirrored):
    """Of `strategy.extended`; cnnkit.training.distribute is the only file that uses it."""
    with mirrored.scope():
        variable = tf.Variable([1.0, 2.0])

    @tf.function
    def step():
        context = tf.distribute.get_replica_context
        own = mirrored.run(
            lambda: tf.fill([2], 1.0 + tf.cast(context().replica_id_in_sync_group, tf.float32))
        )
        [total] = sum_over_replicas(mirrored, [own], [variable])
        update_replicas(mirrored, variable, lambda copy, value: copy.assign_sub(value), total)

    step()
    for copy in local_results(mirrored, variable):
        np.testing.assert_array_equal(copy, [1.0 - 3.0, 2.0 - 3.0])


class OfCluster:
    """A strategy as one process of a cluster sees it."""

    class extended:
        worker_devices = ("/device:CPU:0", "/device:CPU:1")

    def __init__(self, cluster, task_type, task_id):
        self.cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(cluster), task_type=task_type, task_id=task_id
        )
        self.num_replicas_in_sync = 2 * sum(map(len, cluster.values()))


@pytest.mark.parametrize(
    ("cluster", "task", "place"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), (1, 2)),
        ({"chief": ["c:1"], "worker": ["a:1", "b:1"]}, ("chief", 0), (0, 3)),
        ({"chief": ["c:1"], "worker": ["a:1", "b:1"]}, ("worker", 1), (2, 3)),
        ({"worker": ["a:1"]}, ("worker", 0), (0, 1)),
    ],
)
def test_the_chief_comes_before_the_workers(cluster, task, place):
    strategy = OfCluster(cluster, *task)
    assert process_index_and_count(strategy) == place
    assert replica_devices(strategy) == ["CPU", "CPU"] * place[1]


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "9"])
def test_the_time_to_wait_for_workers_is_a_number_of_seconds(seconds):
    with pytest.raises(UsageError, match="`worker_timeout` must be a number of seconds above 0"):
        get_strategy("default", worker_timeout=seconds)


@pytest.mark.parametrize("given", [{"workers": ["a:1"]}, {"worker_index": 0}])
def test_workers_belong_to_their_strategy(given):
    with pytest.raises(
        UsageError, match="belong to the strategy multiworker. Received: `strategy="
    ):
        get_strategy("mirrored", **given)


def test_a_lost_worker_is_an_error_of_several_processes_alone():
    lost = tf.errors.UnavailableError(None, None, "gone")
    with pytest.raises(tf.errors.UnavailableError), translate_worker_loss(get_strategy("default")):
        raise lost
    second = OfCluster({"worker": ["a:1", "b:1"]}, "worker", 1)
    with (
        pytest.raises(RunError, match="Worker 1 stops: another of the 2 workers no longer"),
        translate_worker_loss(second),
    ):
        raise lost


def test_old_keywords_are_accepted():
    with (
        pytest.warns(FutureWarning, match="`index` of get_strategy.. is now called"),
        pytest.raises(UsageError, match="`worker_index` must be the position"),
    ):
        get_strategy("multiworker", workers=["a:1", "b:2"], index=2)

"""One distribution strategy a process."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from cnnkit.errors import RunError, UsageError

# Without a GPU, replicas are for trying out what replicas do: two show it.
CPU_REPLICAS = 2


def get_strategy(
    name: str = "default",
    replicas: int | None = None,
    *,
    workers: Sequence[str] = (),
    index: int | None = None,
) -> tf.distribute.Strategy:
    """Returns the distribution strategy called `name`.

    Without a GPU, `"mirrored"` splits the CPU into logical devices, which TensorFlow allows only
    before it is first used. The object is made once in a process: a second mirrored strategy over
    the same CPU devices fails on networks of another shape. `"multiworker"` waits until all the
    processes are there.

    Args:
        name: `"default"`, `"mirrored"` or `"multiworker"`.
        replicas: Replicas of a mirrored strategy; None is every GPU, or two CPU devices.
        workers: Under `"multiworker"` the `host:port` of every process, the same list in all of
            them; empty to read the environment variable TF_CONFIG.
        index: Which of them this process is, counted from 0.

    Raises:
        UsageError: If there are not that many devices, or the processes are not named.

    Example:
        >>> from cnnkit.training import get_strategy
        >>> get_strategy("default").num_replicas_in_sync
        1
    """
    if name != "multiworker" and (workers or index is not None):
        raise UsageError("Workers belong to the strategy multiworker", received=f"strategy={name}")
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "multiworker":
        return _multiworker(tuple(workers), index)
    gpus = tf.config.list_physical_devices("GPU")
    return _mirrored(replicas or len(gpus) or CPU_REPLICAS)


def devices(strategy: tf.distribute.Strategy) -> list[str]:
    """Returns the kind of device of every replica, for example `["CPU", "CPU"]`."""
    if strategy.num_replicas_in_sync == 1:
        return ["GPU" if tf.config.list_physical_devices("GPU") else "CPU"]
    own = [tf.DeviceSpec.from_string(d).device_type for d in strategy.extended.worker_devices]
    return own * process_index_and_count(strategy)[1]


def process_index_and_count(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns the number of this process, counted from 0, and the number of all."""
    resolver = strategy.cluster_resolver
    processes = resolver.cluster_spec().as_dict() if resolver else {}
    chiefs, workers = (len(processes.get(job, ())) for job in ("chief", "worker"))
    if chiefs + workers < 2:
        return 0, 1
    return resolver.task_id + (chiefs if resolver.task_type == "worker" else 0), chiefs + workers


def shard_batch(batch: Mapping[str, tf.Tensor], strategy: tf.distribute.Strategy):
    """Cuts a batch into one part for every replica.

    Args:
        batch: Tensors by name, this process's rows, divisible by its replicas.
        strategy: The replicas.

    Returns:
        A batch for `strategy.run`.
    """
    process, processes = process_index_and_count(strategy)
    replicas = strategy.num_replicas_in_sync // processes
    if replicas == 1:
        return batch
    parts = {name: tf.split(rows, replicas) for name, rows in batch.items()}
    # Not `experimental_distribute_dataset`: its iterators tune themselves whatever the dataset
    # says, which makes the end of an epoch wait (see cnnkit.data.pipeline).
    return strategy.experimental_distribute_values_from_function(
        lambda context: {
            name: rows[context.replica_id_in_sync_group - process * replicas]
            for name, rows in parts.items()
        }
    )


@functools.cache
def _mirrored(replicas: int) -> tf.distribute.MirroredStrategy:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if replicas > len(gpus):
            raise UsageError(
                "There are not enough GPUs for the replicas",
                expected=f"at most {len(gpus)}",
                received=replicas,
            )
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(replicas)])
    _split_cpu(replicas)
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)],
        # The collective that is the default hangs on to the shapes it first saw.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


@functools.cache
def _multiworker(
    workers: tuple[str, ...], index: int | None
) -> tf.distribute.MultiWorkerMirroredStrategy:
    if workers:
        if index is None or not 0 <= index < len(workers):
            raise UsageError(
                "Which of the workers is this process?",
                expected=f"an index of 0 to {len(workers) - 1}",
                received=index,
            )
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(workers)}),
            task_type="worker",
            task_id=index,
            rpc_layer="grpc",
        )
    elif "TF_CONFIG" in os.environ:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    else:
        raise UsageError(
            "The strategy multiworker needs to know its processes",
            expected="workers=[host:port, ...] and an index, or TF_CONFIG in the environment",
        )
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise UsageError(
            "Workers can be joined only before TensorFlow is first used",
            expected="get_strategy('multiworker') at the start of the process",
            received=error,
        ) from error
    except tf.errors.OpError as error:
        raise UsageError("The workers could not be joined", received=error.message) from error


def _split_cpu(replicas: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu)
    if configured is None or len(configured) < replicas:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
            )
        except RuntimeError as error:
            raise UsageError(
                "The CPU can be split only before TensorFlow is first used",
                expected=f"get_strategy('mirrored', {replicas}) at the start of the process",
            ) from error


# What TensorFlow raises in a process when another one has gone.
GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)


@contextmanager
def translate_worker_loss(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns TensorFlow's error about a process that has gone into one line.

    A process that ends closes its connections, which the others see in their next sum; one that
    is cut off is missed by TensorFlow's own asking, every 30 seconds.

    Raises:
        RunError: If another process no longer answers.
    """
    process, processes = process_index_and_count(strategy)
    try:
        yield
    except GONE as error:
        if processes == 1:
            raise
        raise RunError(
            f"Worker {process} stops: another of the {processes} workers no longer answers",
            hint="Start all of them again with --resume",
        ) from error


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Waits until every process has come here, the first one's files written.

    Raises:
        RunError: If another process has gone before it came here.
    """
    with translate_worker_loss(strategy):
        broadcast_bytes(strategy, b"written")
    # Who has heard that may end, and close the connection on one that is still listening. So all
    # meet again; whoever comes here has heard, and what becomes of this sum is all the same.
    with contextlib.suppress(*GONE):
        broadcast_bytes(strategy, b"heard")


def broadcast_bytes(strategy: tf.distribute.Strategy, data: bytes) -> bytes:
    """Returns the first process's `data` in every process.

    Example:
        >>> import tensorflow as tf
        >>> broadcast_bytes(tf.distribute.get_strategy(), b"alone")
        b'alone'
    """
    process, processes = process_index_and_count(strategy)
    if processes == 1:
        return data
    size = int(_tell(strategy, np.array([len(data)], np.int32))[0])
    words = np.zeros(-(-size // 4), np.int32)
    if process == 0:
        words = np.frombuffer(data.ljust(4 * len(words), b"\0"), np.int32)
    return _tell(strategy, words).tobytes()[:size]


def broadcast_arrays(
    strategy: tf.distribute.Strategy, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the first process's arrays in every process."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    with np.load(
        io.BytesIO(broadcast_bytes(strategy, file.getvalue())), allow_pickle=False
    ) as archive:
        return dict(archive)


def broadcast_variables(strategy: tf.distribute.Strategy, variables: Sequence) -> None:
    """Fills the variables of every process with the first one's, bit for bit."""
    if process_index_and_count(strategy)[1] == 1:
        return
    for variable in variables:
        value = np.asarray(variable.value)
        bits = _tell(strategy, np.atleast_1d(value).view(np.int32))
        variable.assign(bits.view(value.dtype).reshape(value.shape))


def check_same_configuration_everywhere(
    strategy: tf.distribute.Strategy, work: Mapping[str, Any]
) -> None:
    """Makes sure that all processes were given the same to do.

    Raises:
        RunError: In a process that was given something else than the first; it is named.
    """
    wanted = json.loads(broadcast_bytes(strategy, json.dumps(work).encode()))
    mine = json.loads(json.dumps(work))
    for name, value in wanted.items():
        if mine.get(name) != value:
            raise RunError(
                f"Worker {process_index_and_count(strategy)[0]} was started with another {name}",
                expected=value,
                received=mine.get(name),
            )


def _tell(strategy: tf.distribute.Strategy, words: np.ndarray) -> np.ndarray:
    """Sums the processes' int32 words, of which only the first one's count: its bits arrive."""
    return _summing(strategy)(tf.constant(words.ravel())).numpy()


@functools.cache
def _summing(strategy: tf.distribute.Strategy):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def summed(words):
        def on_replica(words):
            context = tf.distribute.get_replica_context()
            own = tf.where(tf.equal(context.replica_id_in_sync_group, 0), words, 0)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        return strategy.experimental_local_results(strategy.run(on_replica, args=(words,)))[0]

    return summed

"""Distribution strategies, and communication between replicas and between processes.

Strategies and the collective that broadcasts are cached for the life of the process: TensorFlow can
split the CPU and join workers only once, and a second mirrored strategy over the same CPU devices
fails on networks of another shape (TensorFlow 2.21). `get_strategy` therefore returns the same
object for the same arguments.

This is the only file of the package that uses `strategy.extended` and the experimental methods of
`tf.distribute`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit._deprecation import renamed_argument
from cnnkit._signals import default_signals
from cnnkit.errors import RunError, UsageError, unknown_name
from cnnkit.training.cluster import JOBS, cluster_resolver
from cnnkit.training.rendezvous import WORKER_TIMEOUT, kill_after, wait_for_workers

_LOG = logging.getLogger(__name__)
# Strategies by the workers and the index of this process.
_MULTIWORKER: dict[Any, tf.distribute.MultiWorkerMirroredStrategy] = {}
# Two replicas on a CPU gain no speed; they show that the code works on replicas.
CPU_REPLICAS = 2
STRATEGIES = ("default", "mirrored", "multiworker")


@renamed_argument("index", "worker_index")
def get_strategy(
    name: str = "default",
    replicas: int | None = None,
    *,
    workers: Sequence[str] = (),
    worker_index: int | None = None,
    worker_timeout: float = WORKER_TIMEOUT,
    report: Callable[[str], object] = _LOG.warning,
) -> tf.distribute.Strategy:
    """Return the distribution strategy called `name`.

    Without a GPU, `"mirrored"` splits the CPU into logical devices, which TensorFlow allows only
    before it is first used. `"multiworker"` waits for all processes.

    Args:
        name: `"default"`, `"mirrored"` or `"multiworker"`.
        replicas: Number of replicas of a mirrored strategy; None for every GPU, or two CPU devices.
        workers: Under `"multiworker"` the `host:port` of every process, the same list in all of
            them; empty to read the environment variable TF_CONFIG.
        worker_index: Index of this process in `workers`, from 0.
        worker_timeout: Seconds to wait for the other processes.
        report: Called every 10 seconds of waiting with a sentence that names the processes that
            are missing. By default it is logged.

    Raises:
        UsageError: If there are fewer devices than replicas, the processes are not given or not
            as TensorFlow needs them, or TensorFlow was used before.
        RunError: If a process does not start in time, or the port of this one is taken.

    Example:
        >>> from cnnkit.training import get_strategy
        >>> get_strategy("default").num_replicas_in_sync
        1
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    if replicas is not None and replicas < 1:
        raise UsageError("`replicas` must be at least 1", received=replicas)
    if name != "multiworker" and (workers or worker_index is not None):
        raise UsageError(
            "`workers` and `worker_index` belong to the strategy multiworker",
            received=f"`strategy={name}`",
        )
    if not (isinstance(worker_timeout, (int, float)) and 0 < worker_timeout < math.inf):
        raise UsageError(
            "`worker_timeout` must be a number of seconds above 0", received=worker_timeout
        )
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "multiworker":
        key = (tuple(workers), worker_index)
        if key not in _MULTIWORKER:
            _MULTIWORKER[key] = _join_workers(*key, worker_timeout, report)
        return _MULTIWORKER[key]
    gpus = tf.config.list_physical_devices("GPU")
    return _mirrored(replicas or len(gpus) or CPU_REPLICAS)


@functools.cache
def _mirrored(replicas: int) -> tf.distribute.MirroredStrategy:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if replicas > len(gpus):
            raise UsageError(
                f"`replicas` must be at most the number of GPUs, {len(gpus)}",
                received=replicas,
            )
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(replicas)])
    _split_cpu(replicas)
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)],
        # The default collective keeps the shapes that it saw first.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def _join_workers(
    workers: tuple[str, ...],
    worker_index: int | None,
    timeout: float,
    report: Callable[[str], object],
) -> tf.distribute.MultiWorkerMirroredStrategy:
    resolver = cluster_resolver(workers, worker_index)
    jobs = resolver.cluster_spec().as_dict()
    addresses = [one for job in JOBS for one in jobs.get(job, ())]
    own = addresses.index(jobs[resolver.task_type][resolver.task_id])
    wait_for_workers(addresses, own, timeout=timeout, report=report)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    lost = f"cnnkit: error: Worker {own} stops: another one ended while they were being joined."
    try:
        with default_signals(), kill_after(timeout, lost):
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise UsageError(
            "`workers` can be joined only before TensorFlow is first used",
            expected="get_strategy('multiworker') at the start of the process",
            received=error,
        ) from error
    except tf.errors.OpError as error:
        raise UsageError("`workers` could not be joined", received=error.message) from error


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
                f"The CPU can be split into {replicas} replicas only before TensorFlow is first "
                "used",
                expected=f"get_strategy('mirrored', {replicas}) at the start of the process",
            ) from error


def replica_devices(strategy: tf.distribute.Strategy) -> list[str]:
    """Return the kind of device of every replica, for example `["CPU", "CPU"]`."""
    if strategy.num_replicas_in_sync == 1:
        return ["GPU" if tf.config.list_physical_devices("GPU") else "CPU"]
    own = [tf.DeviceSpec.from_string(d).device_type for d in strategy.extended.worker_devices]
    return own * process_index_and_count(strategy)[1]


def process_index_and_count(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Return the index of this process, from 0, and the number of processes."""
    resolver = strategy.cluster_resolver
    processes = resolver.cluster_spec().as_dict() if resolver else {}
    chiefs, workers = (len(processes.get(job, ())) for job in ("chief", "worker"))
    if chiefs + workers < 2:
        return 0, 1
    return resolver.task_id + (chiefs if resolver.task_type == "worker" else 0), chiefs + workers


def shard_batch(
    batch: Mapping[str, tf.Tensor], strategy: tf.distribute.Strategy
) -> Mapping[str, Any]:
    """Divide a batch among the replicas of this process.

    Args:
        batch: Tensors by name, this process's rows; their number is divisible by the number of
            its replicas.
        strategy: The distribution strategy.

    Returns:
        A batch for `strategy.run`.
    """
    process, processes = process_index_and_count(strategy)
    replicas = strategy.num_replicas_in_sync // processes
    if replicas == 1:
        return batch
    parts = {name: tf.split(rows, replicas) for name, rows in batch.items()}
    # Not `experimental_distribute_dataset`: its iterators tune themselves whatever the options of
    # the dataset, which delays the end of an epoch (see cnnkit.data.pipeline).
    return strategy.experimental_distribute_values_from_function(
        lambda context: {
            name: rows[context.replica_id_in_sync_group - process * replicas]
            for name, rows in parts.items()
        }
    )


def local_results(strategy: tf.distribute.Strategy, values: Any) -> tuple[tf.Tensor, ...]:
    """Return the results of `strategy.run` on each replica of this process."""
    return strategy.experimental_local_results(values)


def sum_over_replicas(
    strategy: tf.distribute.Strategy, values: Sequence[Any], variables: Sequence[tf.Variable]
) -> list[Any]:
    """Sum values over all replicas, with the result at every copy of the variables.

    Args:
        strategy: The distribution strategy.
        values: One value per replica for each variable, for example its gradient.
        variables: The variables.
    """
    return strategy.extended.batch_reduce_to(
        tf.distribute.ReduceOp.SUM, list(zip(values, variables, strict=True))
    )


def update_replicas(
    strategy: tf.distribute.Strategy,
    variable: tf.Variable,
    function: Callable[..., Any],
    value: Any,
) -> None:
    """Call `function(copy, value)` for every copy of a variable."""
    strategy.extended.update(variable, function, args=(value,))


# Errors that TensorFlow raises in a process when another one has gone.
WORKER_LOSS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)


@contextmanager
def translate_worker_loss(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Raise a `RunError` in place of TensorFlow's errors about a lost process.

    A process that ends closes its connections, and the next collective of the others fails. A
    process that is cut off from the network is detected by TensorFlow's health check, every 30
    seconds.

    Raises:
        RunError: If another process no longer answers.
    """
    process, processes = process_index_and_count(strategy)
    try:
        yield
    except WORKER_LOSS as error:
        if processes == 1:
            raise
        raise RunError(
            f"Worker {process} stops: another of the {processes} workers no longer answers",
            hint="Start all of them again with `resume=True`",
        ) from error


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Wait until every process has reached the barrier.

    Raises:
        RunError: If another process ended before it reached the barrier.
    """
    with translate_worker_loss(strategy):
        broadcast_bytes(strategy, b"written")
    # A process that has received the message may exit and thereby drop peers that are still
    # receiving it. A second broadcast prevents that; its result is ignored.
    with contextlib.suppress(*WORKER_LOSS):
        broadcast_bytes(strategy, b"received")


def broadcast_bytes(strategy: tf.distribute.Strategy, data: bytes) -> bytes:
    """Return the `data` of the first process in every process.

    Example:
        >>> import tensorflow as tf
        >>> broadcast_bytes(tf.distribute.get_strategy(), b"one process")
        b'one process'
    """
    process, processes = process_index_and_count(strategy)
    if processes == 1:
        return data
    size = int(_broadcast_words(strategy, np.array([len(data)], np.int32))[0])
    words = np.zeros(-(-size // 4), np.int32)
    if process == 0:
        words = np.frombuffer(data.ljust(4 * len(words), b"\0"), np.int32)
    return _broadcast_words(strategy, words).tobytes()[:size]


def broadcast_arrays(
    strategy: tf.distribute.Strategy, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the arrays of the first process in every process."""
    file = io.BytesIO()
    np.savez(file, **dict[str, Any](arrays))
    received = io.BytesIO(broadcast_bytes(strategy, file.getvalue()))
    with np.load(received, allow_pickle=False) as archive:
        return dict(archive)


def broadcast_variables(
    strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]
) -> None:
    """Assign the first process's variables to those of every process, bit for bit."""
    if process_index_and_count(strategy)[1] == 1:
        return
    for variable in variables:
        value = np.asarray(variable.value)
        bits = _broadcast_words(strategy, np.atleast_1d(value).view(np.int32))
        variable.assign(bits.view(value.dtype).reshape(value.shape))


def check_same_configuration_everywhere(
    strategy: tf.distribute.Strategy, work: Mapping[str, Any]
) -> None:
    """Check that all processes were started with the same configuration and dataset.

    Args:
        strategy: The distribution strategy.
        work: Values by name, as JSON can hold them.

    Raises:
        RunError: In a process whose values differ from the first one's; the name is given.
    """
    expected = json.loads(broadcast_bytes(strategy, json.dumps(work).encode()))
    own = json.loads(json.dumps(work))
    for name, value in expected.items():
        if own.get(name) != value:
            raise RunError(
                f"Worker {process_index_and_count(strategy)[0]} was started with another {name}",
                expected=value,
                received=own.get(name),
            )


def _broadcast_words(strategy: tf.distribute.Strategy, words: np.ndarray) -> np.ndarray:
    """Return the int32 words of the first process: an all-reduce to which the others add zeros."""
    return _all_reduce_function(strategy)(tf.constant(words.ravel())).numpy()


@functools.cache
def _all_reduce_function(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def all_reduce(words: tf.Tensor) -> tf.Tensor:
        def on_replica(words: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            own = tf.where(tf.equal(context.replica_id_in_sync_group, 0), words, 0)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        return local_results(strategy, strategy.run(on_replica, args=(words,)))[0]

    return all_reduce

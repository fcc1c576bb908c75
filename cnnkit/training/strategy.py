"""One distribution strategy a process."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from cnnkit.errors import UsageError

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
    return own * process_of(strategy)[1]


def process_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns the number of this process, counted from 0, and the number of all."""
    resolver = strategy.cluster_resolver
    processes = resolver.cluster_spec().as_dict() if resolver else {}
    chiefs, workers = (len(processes.get(job, ())) for job in ("chief", "worker"))
    if chiefs + workers < 2:
        return 0, 1
    return resolver.task_id + (chiefs if resolver.task_type == "worker" else 0), chiefs + workers


def shared_out(batch: Mapping[str, tf.Tensor], strategy: tf.distribute.Strategy):
    """Cuts a batch into one part for every replica.

    Args:
        batch: Tensors by name, this process's rows, divisible by its replicas.
        strategy: The replicas.

    Returns:
        A batch for `strategy.run`.
    """
    process, processes = process_of(strategy)
    replicas = strategy.num_replicas_in_sync // processes
    if replicas == 1:
        return batch
    parts = {name: tf.split(rows, replicas) for name, rows in batch.items()}
    # Not `experimental_distribute_dataset`: its iterators tune themselves whatever the dataset
    # says, which makes the end of an epoch wait (see cnnkit.data.workers).
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

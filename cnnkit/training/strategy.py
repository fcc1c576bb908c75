"""One distribution strategy a process."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import tensorflow as tf

from cnnkit.errors import UsageError

# Without a GPU, replicas are for trying out what replicas do: two show it.
CPU_REPLICAS = 2


def get_strategy(name: str = "default", replicas: int | None = None) -> tf.distribute.Strategy:
    """Returns the distribution strategy called `name`.

    Without a GPU, `"mirrored"` splits the CPU into logical devices, which TensorFlow allows only
    before it is first used. The object is made once in a process: a second mirrored strategy over
    the same CPU devices fails on networks of another shape.

    Args:
        name: `"default"` or `"mirrored"`.
        replicas: Replicas of a mirrored strategy; None is every GPU, or two CPU devices.

    Raises:
        UsageError: If there are not that many devices.

    Example:
        >>> from cnnkit.training import get_strategy
        >>> get_strategy("default").num_replicas_in_sync
        1
    """
    if name == "default":
        return tf.distribute.get_strategy()
    gpus = tf.config.list_physical_devices("GPU")
    return _mirrored(replicas or len(gpus) or CPU_REPLICAS)


def devices(strategy: tf.distribute.Strategy) -> list[str]:
    """Returns the kind of device of every replica, for example `["CPU", "CPU"]`."""
    if strategy.num_replicas_in_sync == 1:
        return ["GPU" if tf.config.list_physical_devices("GPU") else "CPU"]
    return [tf.DeviceSpec.from_string(d).device_type for d in strategy.extended.worker_devices]


def shared_out(batch: Mapping[str, tf.Tensor], strategy: tf.distribute.Strategy):
    """Cuts a batch into one part for every replica.

    Args:
        batch: Tensors by name, whose rows are divisible by the replicas.
        strategy: The replicas.

    Returns:
        A batch for `strategy.run`.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batch
    parts = {name: tf.split(rows, replicas) for name, rows in batch.items()}
    # Not `experimental_distribute_dataset`: its iterators tune themselves whatever the dataset
    # says, which makes the end of an epoch wait (see cnnkit.data.workers).
    return strategy.experimental_distribute_values_from_function(
        lambda context: {
            name: rows[context.replica_id_in_sync_group] for name, rows in parts.items()
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

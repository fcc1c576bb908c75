"""Addresses of the processes of a distributed training, from arguments or from TF_CONFIG."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from cnnkit.errors import UsageError

TF_CONFIG = "TF_CONFIG"
EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'  # noqa: E501
)
# All processes of the strategy train; there are no parameter servers and no evaluators.
JOBS = ("chief", "worker")
LARGEST_PORT = 65535


def cluster_resolver(
    workers: Sequence[str] = (), worker_index: int | None = None
) -> tf.distribute.cluster_resolver.ClusterResolver:
    """Return the addresses of all processes and the place of this one.

    Args:
        workers: The `host:port` of every process; empty to read the environment variable TF_CONFIG.
        worker_index: Index of this process in `workers`, from 0.

    Raises:
        UsageError: If the processes are not given, or not as TensorFlow needs them.

    Example:
        >>> cluster_resolver(["host1:2222", "host2:2222"], 1).task_id
        1
    """
    if workers:
        _check_addresses("`workers`", workers)
        if worker_index is None or not 0 <= worker_index < len(workers):
            raise UsageError(
                "`worker_index` must be the position of this process in `workers`",
                expected=f"an index of 0 to {len(workers) - 1}",
                received=worker_index,
            )
        cluster: dict[str, Any] = {"worker": list(workers)}
        task_type, task_id = "worker", worker_index
    elif worker_index is not None:
        raise UsageError("`worker_index` needs `workers`, the addresses of all processes")
    else:
        cluster, task_type, task_id = _read_tf_config(os.environ.get(TF_CONFIG))
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type=task_type, task_id=task_id, rpc_layer="grpc"
    )


def _read_tf_config(text: str | None) -> tuple[dict[str, Any], str, int]:
    """Return the addresses by job, and the job and the index of this process."""
    if not text:
        raise UsageError(
            f"The strategy multiworker needs `workers` or {TF_CONFIG}",
            expected=f"`workers` (host:port ...) and `worker_index`, or {TF_CONFIG}={EXAMPLE}",
        )
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{TF_CONFIG} must be JSON", expected=EXAMPLE, received=error) from error
    cluster = _part(config, "cluster")
    unknown = [job for job in cluster if job not in JOBS]
    if unknown or not cluster:
        raise UsageError(
            f"The cluster of {TF_CONFIG} must hold a chief, workers or both: every process of the "
            "strategy multiworker trains",
            received=", ".join(unknown) or "no process",
        )
    for role, addresses in cluster.items():
        _check_addresses(f"{role} in the cluster of {TF_CONFIG}", addresses)
    _check_distinct(TF_CONFIG, [one for addresses in cluster.values() for one in addresses])
    if len(cluster.get("chief", ())) > 1:
        raise UsageError(
            f"The cluster of {TF_CONFIG} must hold one chief", received=len(cluster["chief"])
        )
    task = _part(config, "task")
    job: Any = task.get("type")
    index: Any = task.get("index")
    if not isinstance(job, str) or job not in cluster:
        raise UsageError(
            f"The task of {TF_CONFIG} must have the type of a process of its cluster",
            expected=" or ".join(cluster),
            received=repr(job),
            hint="This process has no part in the training: end it, or correct its type",
        )
    # Some launchers write the index as a text.
    number = int(index) if isinstance(index, str) and index.isdecimal() else index
    if type(number) is not int or not 0 <= number < len(cluster[job]):
        raise UsageError(
            f"The task of {TF_CONFIG} must have the index of a {job} of its cluster",
            expected=f"0 to {len(cluster[job]) - 1}",
            received=repr(index),
        )
    return cluster, job, number


def _part(config: Any, name: str) -> dict[str, Any]:
    part = config.get(name) if isinstance(config, dict) else None
    if not isinstance(part, dict):
        received = f"no {name}" if part is None else repr(part)
        raise UsageError(f"{TF_CONFIG} must hold a {name}", expected=EXAMPLE, received=received)
    return part


def _check_addresses(name: str, addresses: Any) -> None:
    is_list = isinstance(addresses, (list, tuple)) and bool(addresses)
    for address in addresses if is_list else [addresses]:
        found = isinstance(address, str) and re.fullmatch(r"[^\s/]+:(\d{1,5})", address)
        if not is_list or not found or not 0 < int(found[1]) <= LARGEST_PORT:
            raise UsageError(
                f"{name} must be the addresses of the processes",
                expected="a list of host:port",
                received=repr(address),
            )
    _check_distinct(name, addresses)


def _check_distinct(name: str, addresses: Any) -> None:
    twice = next((one for one in addresses if list(addresses).count(one) > 1), None)
    if twice is not None:
        raise UsageError(f"{name} must name every process once", received=f"{twice} twice")

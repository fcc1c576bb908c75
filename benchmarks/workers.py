"""Measure the time of the all-reduce between two worker processes on loopback.

    python benchmarks/workers.py --networks cifar10_full alexnet

Each worker has its own core. The time of the all-reduce is the difference to a step of one process
on one core with the images of one worker. The workers wait for each other in every step, so that a
delay of one delays both: run it on an otherwise idle machine with two cores.
"""

from timing import interleaved  # isort: skip  (quiets TensorFlow before it is imported)

import argparse
import json
import os
import socket
import subprocess
import sys

NETWORKS = {"cifar10_full": (32, 100), "alexnet": (224, 16)}
ROUNDS = 7
MEGA = 1e6


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the median counts")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(name: str, workers: list[str], index: int | None, rounds: int) -> dict:
    """Time the steps of this process, alone or as one of several workers."""
    import numpy as np
    import tensorflow as tf

    from cnnkit.models import build
    from cnnkit.training import SGD, get_strategy
    from cnnkit.training.step import StepRunner

    side, images = NETWORKS[name]
    strategy = get_strategy(
        "multiworker" if workers else "default", workers=workers, worker_index=index
    )
    with strategy.scope():
        model = build(name, initializer="glorot", input_shape=(side, side, 3))
        runner = StepRunner(model, SGD(0.01, momentum=0.9, decay=5e-4), strategy)
    random = np.random.default_rng(index or 0)
    batch = {
        "images": tf.constant(random.uniform(0, 255, (images, side, side, 3)), tf.float32),
        "labels": tf.constant(random.integers(0, 10, images), tf.int32),
        "weights": tf.ones(images),
    }
    all_images = images * strategy.num_replicas_in_sync
    seconds = interleaved({"step": lambda: runner.train(batch, all_images, 1e-4).numpy()}, rounds)
    bytes_summed = 4 * sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    return {"seconds": seconds["step"], "bytes": bytes_summed, "images": images}


def start_worker(name: str, rounds: int, addresses: str, index: int) -> subprocess.Popen:
    """Start a worker on its own core."""
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, __file__, "--rounds", str(rounds), "--worker"]
    return subprocess.Popen(
        [*command, name, addresses, str(index)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cores[index % len(cores)]}),
    )


def results_of(processes: list[subprocess.Popen]) -> list[dict]:
    """Wait for workers and return their measurements.

    Raises:
        RuntimeError: If a worker fails.
    """
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a worker failed")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def free_addresses(count: int) -> str:
    """Return addresses with free ports on loopback, separated by commas."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
    for one in sockets:
        one.close()
    return addresses


def main() -> None:
    """Run the measurements and print them."""
    args = arguments()
    if args.worker:
        name, addresses, index = args.worker
        workers = addresses.split(",") if addresses else []
        print(json.dumps(measure(name, workers, int(index) if workers else None, args.rounds)))
        return
    for name in args.networks:
        [alone] = results_of([start_worker(name, args.rounds, "", 0)])
        addresses = free_addresses(2)
        pair = results_of([start_worker(name, args.rounds, addresses, i) for i in (0, 1)])
        together = max(one["seconds"] for one in pair)
        extra = together - alone["seconds"]
        print(f"\n{name}, {alone['images']} images per worker, "
              f"{alone['bytes'] / MEGA:.1f} MB of gradients")  # fmt: skip
        print(f"  one process, one core    {alone['seconds'] * 1e3:8.1f} ms per step")
        print(f"  two workers, a core each {together * 1e3:8.1f} ms per step")
        print(
            f"  the all-reduce           {extra * 1e3:8.1f} ms, {extra / together:.0%} of a step,"
            f" {alone['bytes'] / MEGA / extra:.0f} MB/s"
            if extra > 0
            else "  the all-reduce           no measurable time"
        )
        print(f"  speed-up                 {2 * alone['seconds'] / together:8.2f} of 2")


if __name__ == "__main__":
    main()

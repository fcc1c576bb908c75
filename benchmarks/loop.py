"""What the training loop costs beside its steps, what a checkpoint costs, and memory over time.

The loop and a bare loop of the same compiled steps on the same images take turns and are compared
in time of all cores, so that other work on the machine counts for neither.
"""

from timing import interleaved  # isort: skip  (quiets TensorFlow before it is imported)

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.data import batches
from cnnkit.run_folder import RunFolder
from cnnkit.training import Callback, epoch
from cnnkit.training.checkpoint import MetricTotals
from cnnkit.training.epoch import TrainingRun
from cnnkit.training.train import prepare_run

ROUNDS = 15
STEPS_PER_CHECKPOINT = 100
STEPS_FOR_MEMORY = 2000
WARM = 500


def job_of(folder: Path, **fields) -> TrainingRun:
    """Gets a training on the digits ready."""
    strategy = tf.distribute.get_strategy()
    options = {"resume": False, "overwrite": False, "download": False, "about": {}}
    run = RunFolder(folder / fields["model"])
    return prepare_run(TrainingConfig(**fields), run, strategy, progress=Callback(), **options)


def looped(job: TrainingRun) -> None:
    """Takes an epoch's steps as training does."""
    job.state.step, job.state.totals = 0, MetricTotals()
    epoch._train(job, 1)


def bare(job: TrainingRun) -> None:
    """Takes the same steps with nothing around them."""
    rate = tf.constant(job.config.learning_rate)
    feed = batches(job.training_images, augmentation=job.shown, batch_size=job.config.batch_size)
    for batch in feed:
        counts = job.assembly.steps._train(batch, tf.constant(100.0), rate)
    counts.numpy()


def overhead(folder: Path, rounds: int) -> None:
    """Prints what the loop adds to a bare step."""
    fields = {"model": "cifar10_quick", "image_size": 32, "batch_size": 100, "learning_rate": 1e-4}
    job = job_of(folder, **fields)
    candidates = {"loop": lambda: looped(job), "bare steps": lambda: bare(job)}
    seconds = interleaved(candidates, rounds, clock=time.process_time)
    steps = job.steps_per_epoch
    for name, value in seconds.items():
        print(f"  {name:<12} {value / steps * 1e3:8.2f} ms a step, all cores")
    print(f"  the loop adds {seconds['loop'] / seconds['bare steps'] - 1:+.1%} (at most 3 %)")


def checkpoints(folder: Path) -> None:
    """Prints what a checkpoint every 100 steps adds, for AlexNet at 224 pixels."""
    fields = {"model": "alexnet", "batch_size": 64, "model_options": {"initializer": "glorot"}}
    job = job_of(folder, **fields)
    feed = batches(job.training_images, augmentation=job.shown, batch_size=64)
    times = []
    for batch in itertools.islice(feed, 4):
        start = time.perf_counter()
        job.assembly.steps.train(batch, 64, 1e-4).numpy()
        times.append(time.perf_counter() - start)
    step = min(times)
    writes = []
    for _ in range(3):
        start = time.perf_counter()
        job.save()
        writes.append(time.perf_counter() - start)
    write = sorted(writes)[1]
    size = max(file.stat().st_size for file in job.run.checkpoints.iterdir()) / 1e6
    print(f"  a step {step:.2f} s, a checkpoint of {size:.0f} MB {write:.2f} s")
    print(f"  every {STEPS_PER_CHECKPOINT} steps: +{write / step / STEPS_PER_CHECKPOINT:.1%}"
          " (at most 5 %)")  # fmt: skip


def resident() -> int:
    """Returns the memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell the memory of a process")


def memory(folder: Path, steps: int) -> None:
    """Prints the memory of the process over many steps with checkpoints."""
    fields = {"model": "cifar10_full", "image_size": 8, "batch_size": 32, "learning_rate": 1e-4,
              "checkpoint_every": "20"}  # fmt: skip
    job = job_of(folder, **fields)
    done, seen = 0, {}
    while done < steps:
        epoch.run_epoch(job)
        job.state.next_epoch()
        job.save()
        done += job.steps_per_epoch
        if done >= WARM:
            seen[done] = resident() / 1e6
    first, last = next(iter(seen.items())), list(seen.items())[-1]
    print(f"  {first[1]:.0f} MB after {first[0]} steps, {last[1]:.0f} MB after {last[0]}: "
          f"{last[1] - first[1]:+.1f} MB")  # fmt: skip


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS_FOR_MEMORY)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("\nThe loop beside its bare steps, cifar10_quick, batch 100")
        overhead(Path(folder), args.rounds)
        print("\nCheckpoints of AlexNet at 224 pixels, batch 64")
        checkpoints(Path(folder))
        print(f"\nMemory over {args.steps:,} steps, validation and checkpoints among them")
        memory(Path(folder), args.steps)


if __name__ == "__main__":
    main()

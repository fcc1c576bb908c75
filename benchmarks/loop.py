"""Measure the overhead of the training loop, the time of a checkpoint, and memory over many steps.

The loop and a bare loop of the same compiled steps on the same images take turns. They are compared
by the CPU time of all cores, which other work on the machine does not change.
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
from cnnkit.training import epoch
from cnnkit.training.checkpoint import MetricTotals
from cnnkit.training.epoch import TrainingRun
from cnnkit.training.train import prepare_run

ROUNDS = 15
STEPS_PER_CHECKPOINT = 100
STEPS_FOR_MEMORY = 2000
WARM = 500


def prepare(folder: Path, **fields) -> TrainingRun:
    """Prepare a training on the digits."""
    strategy = tf.distribute.get_strategy()
    options = {"resume": False, "overwrite": False, "download": False, "metadata": {}}
    run_folder = RunFolder(folder / fields["model"])
    return prepare_run(TrainingConfig(**fields), run_folder, strategy, **options)


def training_loop(run: TrainingRun) -> None:
    """Run the steps of an epoch as training does."""
    run.state.step, run.state.totals = 0, MetricTotals()
    epoch.train_steps(run, 1)


def bare_loop(run: TrainingRun) -> None:
    """Run the same compiled steps and nothing else."""
    rate = tf.constant(run.config.learning_rate)
    feed = batches(
        run.train_split, augmentation=run.train_augmentation, batch_size=run.config.batch_size
    )
    for batch in feed:
        counts = run.components.step_runner.train_on_replicas(batch, tf.constant(100.0), rate)
    counts.numpy()


def overhead(folder: Path, rounds: int) -> None:
    """Print the time that the loop adds to a bare step."""
    fields = {"model": "cifar10_quick", "image_size": 32, "batch_size": 100, "learning_rate": 1e-4}
    run = prepare(folder, **fields)
    candidates = {"loop": lambda: training_loop(run), "bare steps": lambda: bare_loop(run)}
    seconds = interleaved(candidates, rounds, clock=time.process_time)
    steps = run.steps_per_epoch
    for name, value in seconds.items():
        print(f"  {name:<12} {value / steps * 1e3:8.2f} ms a step, all cores")
    print(f"  the loop adds {seconds['loop'] / seconds['bare steps'] - 1:+.1%} (at most 3 %)")


def checkpoints(folder: Path) -> None:
    """Print the time that a checkpoint every 100 steps adds, for AlexNet at 224 pixels."""
    fields = {"model": "alexnet", "batch_size": 64, "model_options": {"initializer": "glorot"}}
    run = prepare(folder, **fields)
    feed = batches(run.train_split, augmentation=run.train_augmentation, batch_size=64)
    times = []
    for batch in itertools.islice(feed, 4):
        start = time.perf_counter()
        run.components.step_runner.train(batch, 64, 1e-4).numpy()
        times.append(time.perf_counter() - start)
    step = min(times)
    writes = []
    for _ in range(3):
        start = time.perf_counter()
        run.save_checkpoint()
        writes.append(time.perf_counter() - start)
    write = sorted(writes)[1]
    size = max(file.stat().st_size for file in run.folder.checkpoints.iterdir()) / 1e6
    print(f"  a step {step:.2f} s, a checkpoint of {size:.0f} MB {write:.2f} s")
    print(f"  every {STEPS_PER_CHECKPOINT} steps: +{write / step / STEPS_PER_CHECKPOINT:.1%}"
          " (at most 5 %)")  # fmt: skip


def resident_memory() -> int:
    """Return the resident memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no line VmRSS")


def memory(folder: Path, steps: int) -> None:
    """Print the memory of the process over many steps with checkpoints."""
    fields = {"model": "cifar10_full", "image_size": 8, "batch_size": 32, "learning_rate": 1e-4,
              "checkpoint_every": "20"}  # fmt: skip
    run = prepare(folder, **fields)
    done, seen = 0, {}
    while done < steps:
        epoch.run_epoch(run)
        run.state.next_epoch()
        run.save_checkpoint()
        done += run.steps_per_epoch
        if done >= WARM:
            seen[done] = resident_memory() / 1e6
    first, last = next(iter(seen.items())), list(seen.items())[-1]
    print(f"  {first[1]:.0f} MB after {first[0]} steps, {last[1]:.0f} MB after {last[0]}: "
          f"{last[1] - first[1]:+.1f} MB")  # fmt: skip


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS_FOR_MEMORY)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("\nTraining loop and bare steps, cifar10_quick, batch 100")
        overhead(Path(folder), args.rounds)
        print("\nCheckpoints of AlexNet at 224 pixels, batch 64")
        checkpoints(Path(folder))
        print(f"\nMemory over {args.steps:,} steps, with validation and checkpoints")
        memory(Path(folder), args.steps)


if __name__ == "__main__":
    main()

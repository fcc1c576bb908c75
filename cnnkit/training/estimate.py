"""Estimate what a training takes on this machine: time, memory and disk, from some of its steps."""

from __future__ import annotations

import dataclasses
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.config_values import parse_interval
from cnnkit.data import Dataset, Decoding, load_dataset
from cnnkit.data.pipeline import step_count
from cnnkit.data.statistics import IMAGES_FOR_COLORS
from cnnkit.errors import UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training.build import build_components, check_model_options, save_model
from cnnkit.training.callbacks import Callback
from cnnkit.training.checkpoint import TrainingState
from cnnkit.training.diagnostics import LossMonitor, check_splits_hold_images
from cnnkit.training.distribute import get_strategy
from cnnkit.training.epoch import TrainingRun
from cnnkit.training.inputs import (
    check_augmentation,
    compute_input_statistics,
    held_out_augmentation,
    kept_outputs,
    training_augmentation,
)
from cnnkit.training.keras_callbacks import KerasCallbacks
from cnnkit.training.objectives import check_boxes
from cnnkit.training.step_batches import step_batches, training_batches

# Images whose mean is computed for the time that it takes.
SAMPLED_IMAGES = 256
# Steps before those that are measured: the first ones trace and compile.
WARM_UP_STEPS = 3
# Part of the time in which held-out images are measured.
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training takes on this machine.

    Attributes:
        training_images: Number of training images.
        held_out_images: Number of held-out images.
        classes: Number of classes.
        batch_size: Number of images of a step.
        epochs: Number of epochs; a training that may end early takes at most so many.
        step_seconds: Median time of a step, with the wait for its images.
        step_spread: 10th and 90th percentile of that time.
        steps: Number of steps that were measured.
        validation_seconds: Time of a held-out image.
        start_seconds: Time before the second step: colors, building and compiling.
        mean_seconds: Time of a training image for the mean image; 0 without one.
        checkpoint_seconds: Time to write a checkpoint.
        checkpoint_every: Interval between checkpoints within an epoch, as in `TrainingConfig`.
        memory_bytes: Largest resident memory of this process so far.
        disk_bytes: Size of the run folder at the end.
    """

    training_images: int
    held_out_images: int
    classes: int
    batch_size: int
    epochs: int
    step_seconds: float
    step_spread: tuple[float, float]
    steps: int
    validation_seconds: float
    start_seconds: float
    mean_seconds: float
    checkpoint_seconds: float
    checkpoint_every: str | None
    memory_bytes: int
    disk_bytes: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch."""
        return step_count(self.training_images, self.batch_size)

    @property
    def images_per_second(self) -> float:
        """Number of training images in a second."""
        return self.batch_size / self.step_seconds

    @property
    def epoch_seconds(self) -> float:
        """Time of an epoch: its steps, the held-out images and the checkpoints."""
        work = (
            self.steps_per_epoch * self.step_seconds
            + self.held_out_images * self.validation_seconds
        )
        checkpoints = 1
        steps, seconds = parse_interval(self.checkpoint_every)
        if steps is not None:
            checkpoints += (self.steps_per_epoch - 1) // steps
        elif seconds is not None:
            checkpoints += int(work // seconds)
        return work + checkpoints * self.checkpoint_seconds

    @property
    def total_seconds(self) -> float:
        """Time of the whole training."""
        mean = self.training_images * self.mean_seconds
        return self.start_seconds + mean + self.epochs * self.epoch_seconds

    def with_images(self, training_images: int, held_out_images: int) -> TrainingEstimate:
        """Return the estimate for another number of images of the same size.

        Args:
            training_images: Number of training images.
            held_out_images: Number of held-out images.

        Example:
            >>> estimate = estimate_training(config)  # doctest: +SKIP
            >>> estimate.with_images(1_281_167, 50_000).total_seconds / 86_400  # doctest: +SKIP
            29.1
        """
        return dataclasses.replace(
            self, training_images=training_images, held_out_images=held_out_images
        )


def estimate_training(
    config: TrainingConfig,
    *,
    seconds: float = 60.0,
    download: bool = False,
    report: Callable[[str], object] = lambda message: None,
) -> TrainingEstimate:
    """Measure some steps of a training, and estimate the time, memory and disk of the whole.

    The steps read the dataset as the training does. Weights are random, also with `init_from`, and
    do not change; nothing is kept.

    Args:
        config: The configuration.
        seconds: Time of the measurement after the first steps, which compile.
        download: Whether a TensorFlow dataset may be downloaded.
        report: Called with messages.

    Raises:
        UsageError: If `seconds` is not above 0, the configuration contains an unknown name, or its
            strategy is `multiworker`.
        DataError: If the dataset cannot be used.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> from cnnkit.training import estimate_training
        >>> estimate = estimate_training(find_recipe("demo").config)  # doctest: +SKIP
        >>> estimate.total_seconds / 60  # doctest: +SKIP
        0.9
    """
    if not 0 < seconds < math.inf:
        raise UsageError("`seconds` must be above 0", received=seconds)
    if config.strategy == "multiworker":
        raise UsageError(
            "`strategy` must be one of a single process for an estimate",
            received=config.strategy,
        )
    check_model_options(config)
    check_augmentation(config)
    strategy = get_strategy(config.strategy, config.replicas)
    dataset = load_dataset(
        config.dataset, seed=config.seed, download=download, decoding=Decoding.from_config(config)
    )
    check_splits_hold_images(dataset)
    check_boxes(config.task, dataset)
    with tempfile.TemporaryDirectory() as folder:
        run, times = _prepare(config, dataset, strategy, RunFolder(Path(folder)))
        return _measure(run, seconds, times, report)


def _prepare(
    config: TrainingConfig,
    dataset: Dataset,
    strategy: tf.distribute.Strategy,
    folder: RunFolder,
) -> tuple[TrainingRun, tuple[float, float]]:
    """Return a run with random weights, and the times of the colors and of an image of the mean."""
    images = dataset.splits["train"]
    sampled = min(len(images), SAMPLED_IMAGES)
    places = np.linspace(0, len(images) - 1, sampled).astype(np.int64)
    sample = dataclasses.replace(dataset, splits={"train": images.subset(places)})
    start = time.perf_counter()
    statistics = compute_input_statistics(config, sample)
    image_seconds = (time.perf_counter() - start) / sampled
    # A mean image is that of all images; a mean color is that of a sample.
    times = (0.0, image_seconds)
    if config.mean != "pixel":
        times = (min(len(images), IMAGES_FOR_COLORS) * image_seconds, 0.0)
    components = build_components(
        config, dataset.class_names, statistics, strategy, images=kept_outputs(config, dataset)
    )
    callbacks = KerasCallbacks([], components.model, config.epochs, 1)
    run = TrainingRun(
        config=config,
        dataset=dataset,
        folder=folder,
        components=components,
        train_augmentation=training_augmentation(config, statistics),
        held_out_augmentation=held_out_augmentation(config),
        state=TrainingState(),
        callbacks=Callback(),
        keras_callbacks=callbacks,
        monitor=LossMonitor(len(dataset.class_names), config.learning_rate, len(images)),
    )
    return run, times


def _measure(
    run: TrainingRun,
    seconds: float,
    statistics_times: tuple[float, float],
    report: Callable[[str], object],
) -> TrainingEstimate:
    config = run.config
    began = time.perf_counter()
    feed = training_batches(run)

    def step() -> float:
        start = time.perf_counter()
        batch = next(feed)
        # A learning rate of 0 keeps the loss finite; the time is the same.
        run.components.step_runner.train(batch, config.batch_size, 0.0).numpy()
        return time.perf_counter() - start

    step()
    start_seconds = statistics_times[0] + time.perf_counter() - began
    for _ in range(WARM_UP_STEPS - 1):
        step()
    report(f"the first step is done after {start_seconds:.1f} s")
    times, until = [step()], time.perf_counter() + seconds * (1 - VALIDATION_SHARE)
    while time.perf_counter() < until:
        times.append(step())
    validation_seconds = _measure_validation(run, seconds * VALIDATION_SHARE)
    run.folder.checkpoints.mkdir()
    run.save_checkpoint()
    save_model(config, run.components, run.folder.model_file)
    low, median, high = np.quantile(times, [0.1, 0.5, 0.9]).tolist()
    return TrainingEstimate(
        training_images=len(run.train_split),
        held_out_images=len(run.dataset.splits["test"]),
        classes=len(run.dataset.class_names),
        batch_size=config.batch_size,
        epochs=config.epochs,
        step_seconds=median,
        step_spread=(low, high),
        steps=len(times),
        validation_seconds=validation_seconds,
        start_seconds=start_seconds,
        mean_seconds=statistics_times[1],
        checkpoint_seconds=run.seconds["checkpoint"],
        checkpoint_every=config.checkpoint_every,
        memory_bytes=_peak_memory(),
        disk_bytes=_disk(run),
    )


def _measure_validation(run: TrainingRun, seconds: float) -> float:
    """Return the time of a held-out image; the first batch, which compiles, does not count."""
    total, size = len(run.dataset.splits["test"]), run.config.batch_size
    done, until = 0, math.inf
    while True:
        for number, batch in enumerate(step_batches(run, "test")):
            run.components.step_runner.validate(batch).numpy()
            if until == math.inf:
                began = time.perf_counter()
                until = began + seconds
                continue
            done += min(size, total - number * size)
            if time.perf_counter() >= until:
                return (time.perf_counter() - began) / done


def _disk(run: TrainingRun) -> int:
    """Return the size of the run folder at the end: its checkpoints and its networks."""
    config, network = run.config, run.folder.model_file.stat().st_size
    [checkpoint] = run.folder.checkpoints.glob("*.npz")
    networks = 1 + len(config.keep_epochs) + (config.keep_best or config.restore_best)
    checkpoints = min(config.keep_checkpoints, config.epochs)
    return networks * network + checkpoints * checkpoint.stat().st_size


def _peak_memory() -> int:
    """Return the largest resident memory of this process so far in bytes."""
    # Linux counts kilobytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

"""One epoch: steps over the training images, then the held-out images."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from cnnkit.config import TrainingConfig, parse_interval
from cnnkit.data import Augmentation, Dataset, Split, batches, report_undecodable
from cnnkit.data.pipeline import epoch_order, step_count
from cnnkit.run_folder import RunFolder
from cnnkit.training import checkpoint
from cnnkit.training.build import TrainingComponents
from cnnkit.training.callbacks import Callback
from cnnkit.training.checkpoint import MetricTotals, TrainingState
from cnnkit.training.diagnostics import LossMonitor, check_finite_loss, pixel_range_warnings
from cnnkit.training.distribute import process_index_and_count
from cnnkit.training.schedule import learning_rate
from cnnkit.training.signals import Interrupted, StopFlag


@dataclass
class TrainingRun:
    """What is trained, where it stands, and where it is written.

    Attributes:
        config: What was asked for.
        source: The dataset.
        run: The run folder.
        assembly: The network and its steps.
        shown: What is done to training images.
        held_out: What is done to held-out images.
        state: Where the run stands.
        progress: Hears what happens.
        watch: Notices what goes wrong.
        stop: Tells whether a signal has come.
        writes: Whether this process writes the run folder.
        seconds: Where the time went.
        saved: When the last checkpoint was written, and after which step.
    """

    config: TrainingConfig
    source: Dataset
    run: RunFolder
    assembly: TrainingComponents
    shown: Augmentation
    held_out: Augmentation
    state: TrainingState
    progress: Callback
    watch: LossMonitor
    stop: StopFlag = field(default_factory=StopFlag)
    writes: bool = True
    seconds: Counter[str] = field(default_factory=Counter)
    saved: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        """Counts the time to the first checkpoint from now."""
        self.saved = (time.monotonic(), self.number)

    @property
    def training_images(self) -> Split:
        """The images that are learned from."""
        return self.source.splits["train"]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return step_count(len(self.training_images), self.config.batch_size)

    @property
    def number(self) -> int:
        """Steps since training began."""
        return self.state.epochs * self.steps_per_epoch + self.state.step

    def checkpoint_is_due(self, number: int) -> bool:
        """Tells whether one is to be written after step `number` of the run."""
        steps, seconds = parse_interval(self.config.checkpoint_every)
        when, last = self.saved
        if steps is not None:
            return number - last >= steps
        return seconds is not None and time.monotonic() - when >= seconds

    def save(self) -> None:
        """Writes a checkpoint."""
        with self.timed("checkpoint"):
            if self.writes:
                checkpoint.save_checkpoint(
                    self.run.checkpoints,
                    self.number,
                    self.state,
                    self.assembly.steps.state,
                    kept=self.config.keep_checkpoints,
                )
        self.saved = (time.monotonic(), self.number)

    def stop_if_asked(self) -> None:
        """Keeps the state and stops where a signal has come.

        Raises:
            Stopped: If one has.
        """
        if self.stop.signal is not None:
            self.save()
            where = f"after step {self.state.step} of epoch {self.state.epochs + 1}"
            raise Interrupted(self.stop.signal, where, self.run.path)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Counts the time of the block under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def run_epoch(job: TrainingRun) -> dict[str, Any]:
    """Trains what is left of the epoch, validates, and returns its line of metrics.

    Raises:
        RunError: If the loss is no longer finite.
        Stopped: If a signal came; the state is kept.
    """
    epoch = job.state.epochs + 1
    _train(job, epoch)
    with job.timed("validation"):
        held_out = _validate(job)
    totals = job.state.totals
    count = job.steps_per_epoch
    return {
        "epoch": epoch,
        "step": epoch * count,
        "loss": totals.mean_loss,
        "accuracy": totals.accuracy,
        "val_loss": held_out.mean_loss,
        "val_accuracy": held_out.accuracy,
        "learning_rate": learning_rate(job.config, epoch, count - 1, count, job.state.plateau),
        "images_per_second": round(totals.images / totals.seconds, 1),
    }


def _train(job: TrainingRun, epoch: int) -> None:
    config, state, steps = job.config, job.state, job.assembly.steps
    images, count = job.training_images, job.steps_per_epoch
    order = epoch_order(len(images), config.seed, epoch)
    where = {"order": order, "seed": config.seed, "epoch": epoch, "first_step": state.step}
    feed = iter(_batches(job, images, job.shown, **where))
    unread: tuple[int, int, float, tf.Tensor] | None = None

    def read() -> None:
        """Counts the step before: reading it late lets the device go on meanwhile."""
        if unread is not None:
            _count(job, epoch, *unread)

    for step in range(state.step + 1, count + 1):
        before = sum(job.seconds[part] for part in ("input", "step"))
        with job.timed("input"):
            batch = next(feed)
        if (epoch, step) == (1, 1):
            for note in pixel_range_warnings(batch["images"]):
                job.progress.note(note)
        with job.timed("step"):
            shown = min(config.batch_size, len(images) - (step - 1) * config.batch_size)
            rate = learning_rate(config, epoch, step - 1, count, state.plateau)
            result = steps.train(batch, shown, rate)
            read()
            unread = (step, shown, rate, result)
            due = job.checkpoint_is_due(state.epochs * count + step)
            if due or job.stop.signal is not None or step == count:
                read()
                unread = None
        state.totals.seconds += sum(job.seconds[part] for part in ("input", "step")) - before
        job.stop_if_asked()
        if due and step < count:
            job.save()


def _count(
    job: TrainingRun, epoch: int, step: int, images: int, rate: float, result: tf.Tensor
) -> None:
    loss, right = (float(value) for value in result.numpy())
    check_finite_loss(loss, step=step, epoch=epoch, rate=rate)
    job.state.totals.add(images, loss, right)
    job.state.step = step
    job.progress.step(epoch, step, job.steps_per_epoch, images, loss / images)
    for note in job.watch.after_step(loss / images, rate, job.steps_per_epoch):
        job.progress.note(note)


def _validate(job: TrainingRun) -> MetricTotals:
    images, totals = job.source.splits["test"], MetricTotals()
    size = job.config.batch_size
    for step, batch in enumerate(_batches(job, images, job.held_out)):
        loss, right = (float(value) for value in job.assembly.steps.validate(batch).numpy())
        totals.add(min(size, len(images) - step * size), loss, right)
        job.stop_if_asked()
    return totals


def _batches(
    job: TrainingRun, split: Split, augmentation: Augmentation, **where: Any
) -> Iterator[dict[str, tf.Tensor]]:
    with report_undecodable(split):
        yield from batches(
            split,
            augmentation=augmentation,
            batch_size=job.config.batch_size,
            replicas=job.assembly.steps.parts,
            shard=process_index_and_count(job.assembly.steps.strategy),
            **where,
        )

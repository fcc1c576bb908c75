"""Run one epoch: steps over the training images, then validation on the held-out images."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from cnnkit._signals import StopFlag
from cnnkit.config import TrainingConfig
from cnnkit.config_values import parse_interval
from cnnkit.data import Augmentation, Dataset, Split
from cnnkit.data.pipeline import epoch_order, step_count
from cnnkit.errors import RunError
from cnnkit.run_folder import RunFolder
from cnnkit.training.build import TrainingComponents
from cnnkit.training.callbacks import Callback
from cnnkit.training.checkpoint import MetricTotals, TrainingState, save_checkpoint
from cnnkit.training.diagnostics import (
    LossMonitor,
    check_finite_held_out_loss,
    check_finite_loss,
    pixel_range_warnings,
)
from cnnkit.training.distribute import barrier, process_index_and_count, replica_devices
from cnnkit.training.frozen import FrozenPart
from cnnkit.training.keras_callbacks import KerasCallbacks
from cnnkit.training.schedule import learning_rate_at
from cnnkit.training.step import ValidationRunner
from cnnkit.training.step_batches import step_batches

# A shell reports 128 + N for a process that was ended by signal N.
SHELL_SIGNAL_BASE = 128


class Interrupted(RunError):
    """Training was stopped by a signal; the state is saved.

    Args:
        number: The signal.
        position: Epoch and step at which training stopped.
        run: Path of the run folder.
        workers: Number of processes of the training, which stop together.
        is_own: Whether this process received the signal; otherwise another one did.

    Attributes:
        exit_code: 130 after SIGINT, 143 after SIGTERM, as a shell would report.
    """

    def __init__(
        self, number: int, position: str, run: Path, *, workers: int = 1, is_own: bool = True
    ) -> None:
        self.exit_code = SHELL_SIGNAL_BASE + number
        self._arguments = number, position
        self._workers, self._is_own = workers, is_own
        by = signal.Signals(number).name if is_own else "a signal to another worker"
        super().__init__(
            f"Stopped by {by} {position}; everything up to there is kept",
            hint=f"Go on with: cnnkit train --resume --output {run}"
            if workers == 1
            else f"All {workers} workers stopped there: start all of them again with `resume=True`",
        )

    def with_folder(self, folder: Path) -> Interrupted:
        """Return the same error for another folder, for example one that contains several runs."""
        number, position = self._arguments
        return Interrupted(number, position, folder, workers=self._workers, is_own=self._is_own)


@dataclass
class TrainingRun:
    """A training run in progress.

    Attributes:
        config: The configuration.
        dataset: The dataset.
        folder: The run folder.
        components: The network and its step runner.
        train_augmentation: Augmentation of the training images.
        held_out_augmentation: Preprocessing of the held-out images.
        state: Position of the run and its sums.
        callbacks: Notified of the progress.
        keras_callbacks: The one among them that calls those of Keras, and may end training.
        monitor: Detects a loss that does not fall.
        stop: Holds the signal that requested a stop of this process.
        stop_after: Step of this epoch after which all processes stop; None to go on.
        is_chief: Whether this process reads and writes the run folder.
        begins_whole: Whether all weights are those of `init_from`.
        seconds: Time spent, by phase: input, step, validation, checkpoint.
        last_save: Time and step of the last checkpoint.
    """

    config: TrainingConfig
    dataset: Dataset
    folder: RunFolder
    components: TrainingComponents
    train_augmentation: Augmentation
    held_out_augmentation: Augmentation
    state: TrainingState
    callbacks: Callback
    keras_callbacks: KerasCallbacks
    monitor: LossMonitor
    stop: StopFlag = field(default_factory=StopFlag)
    stop_after: int | None = None
    is_chief: bool = True
    begins_whole: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    last_save: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        """Start the clock of the first checkpoint."""
        self.last_save = (time.monotonic(), self.global_step)

    @property
    def frozen_part(self) -> FrozenPart | None:
        """The layers whose outputs are kept in memory, or None."""
        return self.components.frozen_part

    @property
    def train_split(self) -> Split:
        """The training images."""
        return self.dataset.splits["train"]

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch."""
        return step_count(len(self.train_split), self.config.batch_size)

    @property
    def global_step(self) -> int:
        """Number of steps since training began."""
        return self.state.epochs * self.steps_per_epoch + self.state.step

    @property
    def step_seconds(self) -> float:
        """Seconds spent on the steps and on waiting for their input."""
        return self.seconds.get("input", 0.0) + self.seconds.get("step", 0.0)

    def checkpoint_is_due(self, global_step: int) -> bool:
        """Return True if a checkpoint has to be written after the step `global_step`."""
        steps, seconds = parse_interval(self.config.checkpoint_every)
        saved_at, saved_step = self.last_save
        if steps is not None:
            return global_step - saved_step >= steps
        return seconds is not None and time.monotonic() - saved_at >= seconds

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the current state."""
        with self.timed("checkpoint"):
            if self.is_chief:
                save_checkpoint(
                    self.folder.checkpoints,
                    self.global_step,
                    self.state,
                    self.components.step_runner.checkpoint_variables,
                    keep=self.config.keep_checkpoints,
                )
        self.last_save = (time.monotonic(), self.global_step)

    @property
    def processes(self) -> int:
        """Number of processes of the training."""
        return process_index_and_count(self.components.step_runner.strategy)[1]

    def with_stop(self, batch: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        """Add to a batch whether this process has to stop, for the other processes."""
        if self.processes == 1:
            return batch
        return {**batch, "stop": tf.fill(tf.shape(batch["weights"]), float(self.stop.is_set()))}

    def request_stop(self, step: int, stops: Sequence[float] = ()) -> None:
        """Set `stop_after` to `step` if a signal has arrived.

        Args:
            step: The step after which to stop, the same one in all processes.
            stops: The sum of what `with_stop` added, of several processes; they have to agree, so
                that a signal of this one counts only there.
        """
        if self.stop_after is None and (any(stops) if self.processes > 1 else self.stop.is_set()):
            self.stop_after = step

    def stop_if_requested(self) -> None:
        """Save the state and stop if a signal has arrived at this process or at another one.

        Raises:
            Interrupted: If a signal has arrived.
            RunError: If the state could not be saved, or the process that saves it has ended.
        """
        if self.stop_after is None or self.state.step < self.stop_after:
            return
        self.save_checkpoint()
        barrier(self.components.step_runner.strategy)
        raise Interrupted(
            self.stop.signal or signal.SIGTERM,
            f"after step {self.state.step} of epoch {self.state.epochs + 1}",
            self.folder.path,
            workers=self.processes,
            is_own=self.stop.is_set(),
        )

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of the block to `seconds[phase]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[phase] = self.seconds.get(phase, 0.0) + elapsed


def run_epoch(run: TrainingRun) -> dict[str, Any]:
    """Train the remaining steps of the epoch, validate, and return the metrics.

    Raises:
        RunError: If the loss of a step or of the held-out images is not finite.
        Interrupted: If a signal arrived; the state is saved.
    """
    epoch = run.state.epochs + 1
    run.callbacks.on_epoch_begin(epoch)
    train_steps(run, epoch)
    with run.timed("validation"):
        held_out = validate(run, epoch=epoch)
    totals = run.state.totals
    count = run.steps_per_epoch
    return {
        "epoch": epoch,
        "step": epoch * count,
        "loss": totals.mean_loss,
        "accuracy": totals.accuracy,
        "val_loss": held_out.mean_loss,
        "val_accuracy": held_out.accuracy,
        "learning_rate": learning_rate_at(run.config, epoch, count - 1, count, run.state.plateau),
        "images_per_second": round(totals.images / totals.seconds, 1),
    }


def train_steps(run: TrainingRun, epoch: int) -> None:
    """Train the remaining steps of an epoch.

    The result of a step is read after the next step was launched, so that the device never waits
    for Python; before a checkpoint, a stop and the end of the epoch it is read at once.

    Args:
        run: The run.
        epoch: The epoch, from 1.

    Raises:
        RunError: If the loss is not finite.
        Interrupted: If a signal arrived; the state is saved.
    """
    config, state = run.config, run.state
    images, count = run.train_split, run.steps_per_epoch
    order = epoch_order(len(images), config.seed, epoch)
    position: dict[str, Any] = {"order": order, "epoch": epoch, "first_step": state.step}
    feed = iter(step_batches(run, "train", **position))
    unread: tuple[int, int, float, tf.Tensor] | None = None

    def read_previous() -> None:
        if unread is not None:
            _record_step(run, epoch, *unread)

    for step in range(state.step + 1, count + 1):
        before = run.step_seconds
        with run.timed("input"):
            batch = next(feed)
        if (epoch, step) == (1, 1) and run.frozen_part is None:
            for message in pixel_range_warnings(batch["images"]):
                run.callbacks.on_message(message)
        with run.timed("step"):
            batch_images = min(config.batch_size, len(images) - (step - 1) * config.batch_size)
            learning_rate = learning_rate_at(config, epoch, step - 1, count, state.plateau)
            result = run.components.step_runner.train(
                run.with_stop(batch), batch_images, learning_rate
            )
            read_previous()
            unread = (step, batch_images, learning_rate, result)
            due = run.checkpoint_is_due(state.epochs * count + step)
            run.request_stop(step)
            if due or run.stop_after == step or step == count:
                read_previous()
                unread = None
                run.request_stop(step)
        state.totals.seconds += run.step_seconds - before
        run.stop_if_requested()
        if due and step < count:
            run.save_checkpoint()


def _record_step(
    run: TrainingRun, epoch: int, step: int, images: int, learning_rate: float, result: tf.Tensor
) -> None:
    loss, correct, *stops = (float(value) for value in result.numpy())
    # Not this step: only at the next one has every process read this result.
    run.request_stop(min(step + 1, run.steps_per_epoch), stops)
    check_finite_loss(loss, step=step, epoch=epoch, learning_rate=learning_rate)
    run.state.totals.add(images, loss, correct)
    run.state.step = step
    run.callbacks.on_train_batch_end(epoch, step, run.steps_per_epoch, images, loss / images)
    for message in run.monitor.update(loss / images, images, learning_rate):
        run.callbacks.on_message(message)


def validate(run: TrainingRun, *, epoch: int) -> MetricTotals:
    """Measure loss and accuracy on the held-out images.

    The activations of a network in float16 may exceed its largest number, 65,504, where those of
    the saved network, which computes in float32, do not. Then the images are measured in float32.
    """
    totals = _measure(run, run.components.step_runner)
    if not math.isfinite(totals.loss) and run.config.precision != "float32":
        run.callbacks.on_message(
            f"the held-out loss of epoch {epoch} exceeds the range of {run.config.precision}; it "
            "was measured in float32, in which the network is saved"
        )
        strategy = run.components.step_runner.strategy
        with strategy.scope():
            runner = ValidationRunner(
                run.components.float32_model(),
                strategy,
                objective=run.components.step_runner.objective,
            )
        totals = _measure(run, runner)
    check_finite_held_out_loss(totals.loss, epoch=epoch)
    return totals


def _measure(run: TrainingRun, runner: ValidationRunner) -> MetricTotals:
    images, totals = run.dataset.splits["test"], MetricTotals()
    size = run.config.batch_size
    is_whole = runner is not run.components.step_runner
    for step, batch in enumerate(step_batches(run, "test", is_whole=is_whole)):
        result = runner.validate(run.with_stop(batch)).numpy()
        loss, correct, *stops = (float(value) for value in result)
        run.request_stop(run.state.step, stops)
        totals.add(min(size, len(images) - step * size), loss, correct)
        run.stop_if_requested()
    return totals


def describe_run(run: TrainingRun) -> dict[str, Any]:
    """Return the facts that `Callback.on_train_begin` receives."""
    config, dataset, state = run.config, run.dataset, run.state
    return {
        "run": run.folder.path,
        "model": config.model,
        "parameters": run.components.model.count_params(),
        "training_images": len(dataset.splits["train"]),
        "test_images": len(dataset.splits["test"]),
        "classes": len(dataset.class_names),
        "class_names": dataset.class_names,
        "unreadable": dataset.unreadable,
        "left_out": dataset.describe_left_out(),
        "devices": replica_devices(run.components.step_runner.strategy),
        "epochs": config.epochs,
        "first_epoch": state.epochs + 1,
        "first_step": state.step + 1,
        "process": process_index_and_count(run.components.step_runner.strategy)[0],
    }

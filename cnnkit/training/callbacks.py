"""Callbacks of a training run: notified of its progress, and free to show or store it.

The hooks have the names of `keras.callbacks.Callback`. Their arguments are those of this loop,
which has no `logs` dictionary.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from cnnkit.errors import UsageError


class Callback:
    """Base class of callbacks. Every hook does nothing; override the ones you need.

    Example:
        >>> class PrintLoss(Callback):
        ...     def on_epoch_end(self, metrics):
        ...         print(f"epoch {metrics['epoch']}: loss {metrics['loss']:.2f}")
        >>> PrintLoss().on_epoch_end({"epoch": 1, "loss": 2.3026})
        epoch 1: loss 2.30
    """

    def on_train_begin(self, facts: Mapping[str, Any]) -> None:
        """Called before the first step.

        Args:
            facts: Facts about the run: `run` (path of the folder), `model`, `parameters`,
                `training_images`, `test_images`, `classes`, `class_names`, `unreadable` (names of
                files), `left_out` (number of all files left out and why, in words, or None),
                `devices` (kind of each replica), `epochs`, `first_epoch`, `first_step`,
                `recipe` (its name, or None), `deviations` (from the paper), `changes` (those of
                them that were asked for), `process` (index of this process, from 0).
        """

    def on_message(self, message: str) -> None:
        """Called with a warning or a piece of information; training continues."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before the first step of an epoch, or the first one after resuming.

        Args:
            epoch: The epoch, from 1.
        """

    def on_frozen_outputs(self, split: str, done: int, images: int) -> None:
        """Called while the outputs of frozen layers are computed, which the steps then use.

        Args:
            split: `train` or `test`.
            done: Number of images that are done.
            images: Number of images of the split.
        """

    def on_train_batch_end(
        self, epoch: int, step: int, steps: int, images: int, loss: float
    ) -> None:
        """Called after a training step.

        Args:
            epoch: The epoch, from 1.
            step: The step of the epoch, from 1.
            steps: Number of steps of an epoch.
            images: Number of images of the step.
            loss: Mean loss of these images.
        """

    def on_epoch_end(self, metrics: Mapping[str, Any]) -> None:
        """Called after an epoch, its validation and its checkpoint.

        Args:
            metrics: The line of metrics.jsonl: `epoch`, `step`, `loss`, `accuracy`, `val_loss`,
                `val_accuracy`, `learning_rate`, `images_per_second`.
        """

    def on_train_end(self, seconds: Mapping[str, float]) -> None:
        """Called after the last epoch.

        Args:
            seconds: Time spent by this process, by phase.
        """


class CallbackList(Callback):
    """Call several callbacks in order.

    Args:
        callbacks: The callbacks.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def on_train_begin(self, facts: Mapping[str, Any]) -> None:
        """Call `on_train_begin` of each callback."""
        for callback in self._callbacks:
            callback.on_train_begin(facts)

    def on_message(self, message: str) -> None:
        """Call `on_message` of each callback."""
        for callback in self._callbacks:
            callback.on_message(message)

    def on_epoch_begin(self, epoch: int) -> None:
        """Call `on_epoch_begin` of each callback."""
        for callback in self._callbacks:
            callback.on_epoch_begin(epoch)

    def on_frozen_outputs(self, split: str, done: int, images: int) -> None:
        """Call `on_frozen_outputs` of each callback."""
        for callback in self._callbacks:
            callback.on_frozen_outputs(split, done, images)

    def on_train_batch_end(
        self, epoch: int, step: int, steps: int, images: int, loss: float
    ) -> None:
        """Call `on_train_batch_end` of each callback."""
        for callback in self._callbacks:
            callback.on_train_batch_end(epoch, step, steps, images, loss)

    def on_epoch_end(self, metrics: Mapping[str, Any]) -> None:
        """Call `on_epoch_end` of each callback."""
        for callback in self._callbacks:
            callback.on_epoch_end(metrics)

    def on_train_end(self, seconds: Mapping[str, float]) -> None:
        """Call `on_train_end` of each callback."""
        for callback in self._callbacks:
            callback.on_train_end(seconds)


TENSORBOARD_FOLDER = "tensorboard"
# Steps between two points of the training loss.
TENSORBOARD_EVERY = 10


class TensorBoardCallback(Callback):
    """Write losses, accuracies and the learning rate to the folder `tensorboard` of the run.

    Raises:
        UsageError: If TensorBoard is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError(
                "The package `tensorboard` is not installed",
                hint="Install it: pip install tensorboard",
            )
        self._writer: Any = None

    def on_train_begin(self, facts: Mapping[str, Any]) -> None:
        """Open the event file."""
        self._writer = tf.summary.create_file_writer(str(facts["run"] / TENSORBOARD_FOLDER))

    def on_train_batch_end(
        self, epoch: int, step: int, steps: int, images: int, loss: float
    ) -> None:
        """Write the loss of every tenth step."""
        global_step = (epoch - 1) * steps + step
        if global_step % TENSORBOARD_EVERY == 0:
            with self._writer.as_default():
                tf.summary.scalar("step/loss", loss, step=global_step)

    def on_epoch_end(self, metrics: Mapping[str, Any]) -> None:
        """Write the metrics of an epoch."""
        with self._writer.as_default():
            for name, value in metrics.items():
                if name not in ("epoch", "step"):
                    tf.summary.scalar(f"epoch/{name}", value, step=metrics["epoch"])
        self._writer.flush()

    def on_train_end(self, seconds: Mapping[str, float]) -> None:
        """Close the event file."""
        self._writer.close()


# The first steps trace and compile; the later ones are all alike.
FIRST_PROFILED_STEP, PROFILED_STEPS = 10, 5
PROFILE_FOLDER = "profile"


class ProfilerCallback(Callback):
    """Profile a few steps into the folder `profile` of the run, in TensorBoard's format.

    Args:
        first_step: Step of this process before which the profile begins.
        steps: Number of profiled steps.
    """

    def __init__(self, first_step: int = FIRST_PROFILED_STEP, steps: int = PROFILED_STEPS) -> None:
        self._first, self._last = first_step, first_step + steps
        self._folder: Path | None = None
        self._done = 0

    def on_train_begin(self, facts: Mapping[str, Any]) -> None:
        """Store the folder of the run."""
        self._folder = facts["run"] / PROFILE_FOLDER

    def on_train_batch_end(
        self, epoch: int, step: int, steps: int, images: int, loss: float
    ) -> None:
        """Start and stop the profiler."""
        self._done += 1
        if self._done == self._first:
            tf.profiler.experimental.start(str(self._folder))
        elif self._done == self._last:
            tf.profiler.experimental.stop()

    def on_train_end(self, seconds: Mapping[str, float]) -> None:
        """Stop the profiler if training ended before the last profiled step."""
        if self._first <= self._done < self._last:
            tf.profiler.experimental.stop()

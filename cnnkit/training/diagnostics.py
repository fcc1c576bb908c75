"""What goes wrong in training often enough to be told in one line."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.data import Dataset
from cnnkit.errors import RunError

# The mean loss of so many steps, or of an epoch if that is shorter, tells whether it is stuck.
STEPS_TO_JUDGE = (50, 1000)
# How near to ln(classes) a stuck loss stays, relatively.
NEAR = 0.005
# Part of the first learning rate below which nothing is learned any more.
NEGLIGIBLE = 1e-6
NAMED = 5


def startup_warnings(
    config: TrainingConfig, source: Dataset, strategy: tf.distribute.Strategy
) -> list[str]:
    """Returns what is worth knowing before training begins, one sentence each."""
    notes = []
    counts = np.bincount(source.splits["train"].labels, minlength=len(source.class_names))
    missing = [source.class_names[i] for i in np.flatnonzero(counts == 0)]
    if missing:
        more = len(missing) - NAMED
        named = ", ".join(missing[:NAMED]) + (f" and {more} more" if more > 0 else "")
        notes.append(f"no training images of {len(missing)} classes: {named}")
    replicas = strategy.num_replicas_in_sync
    if config.strategy == "mirrored" and replicas == 1:
        notes.append("there is one device to mirror on: this is the default strategy's training")
    if config.batch_size < replicas:
        notes.append(
            f"a batch of {config.batch_size} is smaller than the {replicas} replicas, "
            "some of which will have nothing to do"
        )
    return notes


def pixel_range_warnings(images: tf.Tensor) -> list[str]:
    """Returns what is wrong with the range of a batch of pixels, one sentence each.

    Args:
        images: (n, h, w, 3) float32, as the network gets them.
    """
    smallest, largest = float(tf.reduce_min(images)), float(tf.reduce_max(images))
    if smallest >= 0 and largest <= 1:
        return [
            f"the pixels of the first batch lie in {smallest:g}..{largest:g}; every network takes "
            "0..255 and subtracts the mean of such images: store them as 8-bit files"
        ]
    return []


def check_finite_loss(loss: float, *, step: int, epoch: int, rate: float) -> None:
    """Makes sure that the loss of a step is a number.

    Raises:
        RunError: If it is not.
    """
    if not math.isfinite(loss):
        raise RunError(
            f"The loss is no longer finite at step {step} of epoch {epoch}",
            received=loss,
            hint=f"Lower the learning rate, now {rate:g}, and start afresh; "
            "the checkpoints before it are kept",
        )


class LossMonitor:
    """Watches the loss and the learning rate; each thing is said once.

    Args:
        classes: Number of classes.
        rate: The learning rate at the beginning.
    """

    def __init__(self, classes: int, rate: float) -> None:
        self._chance = math.log(classes)
        self._negligible = rate * NEGLIGIBLE
        self._losses: list[float] = []
        self._said: set[str] = set()

    def after_step(self, loss: float, rate: float, steps: int) -> list[str]:
        """Returns what is worth knowing after a step, one sentence each.

        Args:
            loss: Mean loss of the step.
            rate: Its learning rate.
            steps: Steps of an epoch.
        """
        notes = []
        least, most = STEPS_TO_JUDGE
        window = max(least, min(steps, most))
        if rate < self._negligible:
            notes.append(f"the learning rate has fallen to {rate:.1g}: nothing changes any more")
        self._losses.append(loss)
        if len(self._losses) == window:
            mean = math.fsum(self._losses) / window
            self._losses.clear()
            if abs(mean - self._chance) <= NEAR * self._chance:
                notes.append(
                    f"the loss stays at ln(classes) = {self._chance:.3f}, that of guessing; known "
                    "cures: --model-option bias_value=0.1 (Caffe's), --model-option "
                    "initializer=glorot, another learning rate"
                )
        new = [note for note in notes if note[:20] not in self._said]
        self._said.update(note[:20] for note in new)
        return new

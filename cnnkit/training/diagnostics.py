"""Warnings for common training failures, one sentence each."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.data import Dataset
from cnnkit.errors import RunError

# Fewest and most steps whose mean loss decides whether it is stuck; an epoch if it is between.
WINDOW_STEPS = (50, 1000)
# Relative distance from ln(classes) within which a loss is stuck.
STUCK_TOLERANCE = 0.005
# Fraction of the first learning rate below which the weights no longer change.
NEGLIGIBLE_RATE = 1e-6
LISTED_CLASSES = 5


def startup_warnings(
    config: TrainingConfig, dataset: Dataset, strategy: tf.distribute.Strategy
) -> list[str]:
    """Return the warnings about a configuration and its dataset, one sentence each."""
    messages = []
    counts = np.bincount(dataset.splits["train"].labels, minlength=len(dataset.class_names))
    missing = [dataset.class_names[i] for i in np.flatnonzero(counts == 0)]
    if missing:
        more = len(missing) - LISTED_CLASSES
        listed = ", ".join(missing[:LISTED_CLASSES]) + (f" and {more} more" if more > 0 else "")
        messages.append(f"no training images of {len(missing)} classes: {listed}")
    replicas = strategy.num_replicas_in_sync
    if config.strategy == "mirrored" and replicas == 1:
        messages.append("there is one device to mirror on: this equals the default strategy")
    if config.batch_size < replicas:
        messages.append(
            f"a batch of {config.batch_size} is smaller than the {replicas} replicas, "
            "some of which will have nothing to do"
        )
    return messages


def pixel_range_warnings(images: tf.Tensor) -> list[str]:
    """Return the warnings about the range of the pixels of a batch, one sentence each.

    Args:
        images: (n, h, w, 3) float32, the input of the network.
    """
    smallest, largest = float(tf.reduce_min(images)), float(tf.reduce_max(images))
    if smallest >= 0 and largest <= 1:
        return [
            f"the pixels of the first batch lie in {smallest:g}..{largest:g}; every network takes "
            "0..255 and subtracts the mean of such images: store them as 8-bit files"
        ]
    return []


def check_finite_loss(loss: float, *, step: int, epoch: int, learning_rate: float) -> None:
    """Check that the loss of a step is finite.

    Raises:
        RunError: If it is not.
    """
    if not math.isfinite(loss):
        raise RunError(
            f"The loss is no longer finite at step {step} of epoch {epoch}",
            received=loss,
            hint=f"Lower the learning rate, now {learning_rate:g}, and start again; "
            "the earlier checkpoints are kept",
        )


class LossMonitor:
    """Detect a loss that stays at chance level and a learning rate near 0; each is reported once.

    Args:
        classes: Number of classes.
        learning_rate: Initial learning rate.

    Example:
        >>> monitor = LossMonitor(classes=10, learning_rate=0.1)
        >>> monitor.update(2.0, learning_rate=1e-9, steps_per_epoch=100)
        ['the learning rate has fallen to 1e-09: nothing changes any more']
    """

    def __init__(self, classes: int, learning_rate: float) -> None:
        self._chance_loss = math.log(classes)
        self._negligible_rate = learning_rate * NEGLIGIBLE_RATE
        self._losses: list[float] = []
        self._reported: set[str] = set()

    def update(self, loss: float, learning_rate: float, steps_per_epoch: int) -> list[str]:
        """Return the new warnings after a step, one sentence each.

        Args:
            loss: Mean loss of the step.
            learning_rate: Learning rate of the step.
            steps_per_epoch: Number of steps of an epoch.
        """
        messages = {}
        fewest, most = WINDOW_STEPS
        window = max(fewest, min(steps_per_epoch, most))
        if learning_rate < self._negligible_rate:
            messages["rate"] = (
                f"the learning rate has fallen to {learning_rate:.1g}: nothing changes any more"
            )
        self._losses.append(loss)
        if len(self._losses) == window:
            mean = math.fsum(self._losses) / window
            self._losses.clear()
            if abs(mean - self._chance_loss) <= STUCK_TOLERANCE * self._chance_loss:
                messages["chance"] = (
                    f"the loss stays at ln(classes) = {self._chance_loss:.3f}, that of guessing; "
                    "known cures: --model-option bias_value=0.1 (Caffe's), --model-option "
                    "initializer=glorot, another learning rate"
                )
        new = [text for kind, text in messages.items() if kind not in self._reported]
        self._reported.update(messages)
        return new

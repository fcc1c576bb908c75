"""Warnings for common training failures, one sentence each."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from cnnkit.config import TrainingConfig
from cnnkit.data import Dataset
from cnnkit.errors import DataError
from cnnkit.training.checkpoint import DivergedError, MetricTotals, TrainingState
from cnnkit.training.cluster import TF_CONFIG
from cnnkit.training.inputs import kept_outputs

if TYPE_CHECKING:
    from cnnkit.training.build import TrainingComponents

# A loss at chance is reported after an epoch, or after this many images of each class if that is
# more. Public logs of VGG-16 from scratch on ImageNet show chance for about 3,000 steps of 256
# images, 768 images of each class, before the loss falls.
PATIENCE_PER_CLASS = 1000
# The mean loss over this fraction of those images decides.
WINDOW_FRACTION = 1 / 4
# Relative distance from ln(classes) within which a loss is stuck.
STUCK_TOLERANCE = 0.005
# Fraction of the first learning rate below which the weights no longer change.
NEGLIGIBLE_RATE = 1e-6
LISTED_CLASSES = 5
# Classes whose sizes differ by no more than this factor are balanced.
BALANCED_RATIO = 1.5
# Above this factor every training says it.
UNBALANCED_RATIO = 4
# A network has diverged if its held-out error is higher by more than this fraction than that of the
# best epoch, and its held-out loss by this factor: overfitting raises the loss alone.
DIVERGED_RISE = 0.2
DIVERGED_LOSS_RATIO = 1.5
# Factor of the lower learning rate that a message proposes.
LOWER_RATE = 5


def startup_warnings(
    config: TrainingConfig, dataset: Dataset, strategy: tf.distribute.Strategy
) -> list[str]:
    """Return the warnings about a configuration and its dataset, one sentence each."""
    messages = []
    counts = dataset.count_by_class("train")
    missing = [dataset.class_names[i] for i in np.flatnonzero(counts == 0)]
    if missing:
        more = len(missing) - LISTED_CLASSES
        listed = ", ".join(missing[:LISTED_CLASSES]) + (f" and {more} more" if more > 0 else "")
        messages.append(f"no training images of {len(missing)} classes: {listed}")
    elif (
        config.weight_mapping == "new-classifier" or counts.max() > UNBALANCED_RATIO * counts.min()
    ):
        messages.append(class_balance(dataset))
    messages += _settings_without_effect(config)
    replicas = strategy.num_replicas_in_sync
    if config.strategy == "mirrored" and replicas == 1:
        messages.append("there is one device to mirror on: this equals the default strategy")
    parts = config.gradient_accumulation_steps
    for number, what in ((replicas, "replicas"), (parts, "parts of gradient accumulation")):
        if config.batch_size < number:
            messages.append(
                f"a batch of {config.batch_size} is smaller than the {number} {what}, "
                "some of which will have nothing to do"
            )
    return messages


def class_balance(dataset: Dataset) -> str:
    """Return a sentence about the number of training images of the classes.

    Example:
        >>> from cnnkit.data import load_dataset
        >>> class_balance(load_dataset("digits"))
        '139 to 146 training images of each class'
    """
    counts = dataset.count_by_class("train")
    least, most = counts.argmin(), counts.argmax()
    if counts[most] <= BALANCED_RATIO * counts[least]:
        few, many = (f"{count:,}" for count in (counts[least], counts[most]))
        numbers = few if few == many else f"{few} to {many}"
        return f"{numbers} training images of each class"
    large, small = (dataset.class_names[place] for place in (most, least))
    return (
        f"the classes are not balanced: {counts[most]:,} training images of {large}, "
        f"{counts[least]:,} of {small}; always answering {large} has an error of "
        f"{1 - counts[most] / counts.sum():.1%}"
    )


def frozen_messages(
    config: TrainingConfig, components: TrainingComponents, dataset: Dataset
) -> list[str]:
    """Return what is frozen, and whether its outputs are kept in memory, one sentence each."""
    learning = {one.path.split("/")[-2] for one in components.step_runner.trainable_variables}
    names = [layer.name for layer in components.model.layers if layer.trainable_weights]
    frozen = [name for name in names if name not in learning]
    messages = []
    if frozen:
        free = [name for name in names if name in learning]
        messages.append(
            f"{', '.join(frozen)} {'are' if len(frozen) > 1 else 'is'} frozen; "
            f"{', '.join(free)} {'learn' if len(free) > 1 else 'learns'}"
        )
    part = components.frozen_part
    if part is not None:
        megabytes = kept_outputs(config, dataset) * part.bytes_per_image / 1e6
        messages.append(
            f"the output of {part.layers[-1]} is computed once for each image and augmentation, "
            f"and kept in memory ({megabytes:,.0f} MB)"
        )
    elif config.augmentation_draws is not None:
        reason = "it is too large" if frozen else "no layer is frozen"
        messages.append(f"no output of a frozen layer is kept in memory: {reason}")
    return messages


def _settings_without_effect(config: TrainingConfig) -> list[str]:
    """Return a sentence about each field that was set and changes nothing."""
    is_step, is_plateau = config.schedule == "step", config.schedule == "plateau"
    drops = is_plateau or (is_step and bool(config.lr_milestones))
    has_effect = {
        "lr_milestones": (is_step, "the schedule step"),
        "lr_decay": (drops, "a schedule that drops the learning rate"),
        "patience": (is_plateau, "the schedule plateau"),
        "max_drops": (is_plateau, "the schedule plateau"),
        "weight_mapping": (config.init_from is not None, "init_from"),
        "central_square": (config.crop != "center", "the crops random and ten"),
    }
    default = type(config)()
    messages = [
        f"{name}={getattr(config, name)} has no effect: it belongs to {owner}"
        for name, (used, owner) in has_effect.items()
        if not used and getattr(config, name) != getattr(default, name)
    ]
    if config.warmup_epochs >= config.epochs:
        messages.append(
            f"the learning rate never reaches {config.learning_rate:g}: warmup_epochs is "
            f"{config.warmup_epochs:g} of {config.epochs} epochs"
        )
    late = [epoch for epoch in config.keep_epochs if epoch > config.epochs]
    if late:
        messages.append(f"keep_epochs {late} lie after the last epoch, {config.epochs}")
    if not np.float32(config.learning_rate):
        messages.append(f"the learning rate {config.learning_rate:g} is 0 in float32")
    if TF_CONFIG in os.environ and config.strategy != "multiworker":
        messages.append(
            f"{TF_CONFIG} is set, but this process trains alone: `strategy=multiworker` joins"
        )
    return messages


def check_splits_hold_images(dataset: Dataset) -> None:
    """Check that there are images to train on and images to validate on.

    Raises:
        DataError: If one of the two splits is empty.
    """
    for name, use in (("train", "training"), ("test", "held-out")):
        if not len(dataset.splits[name]):
            raise DataError(
                f"The dataset {dataset.spec} has no {use} images",
                expected="at least two images of a class, or a folder with images of each split",
                received=", ".join(f"{one} {len(split)}" for one, split in dataset.splits.items()),
            )


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
        DivergedError: If it is not.
    """
    if not math.isfinite(loss):
        raise DivergedError(
            f"The loss is no longer finite at step {step} of epoch {epoch}",
            received=loss,
            hint="Start again with a lower rate, "
            f"`learning_rate={learning_rate / LOWER_RATE:.1g}`; the earlier checkpoints are kept",
        )


def check_finite_held_out_loss(loss: float, *, epoch: int) -> None:
    """Check that the loss of the held-out images is finite.

    Raises:
        DivergedError: If it is not.
    """
    if not math.isfinite(loss):
        raise DivergedError(
            f"The loss of the held-out images is not finite after epoch {epoch}",
            received=loss,
            hint="Lower the learning rate and start again; the earlier checkpoints are kept",
        )


class LossMonitor:
    """Detect a loss that stays at chance level and a learning rate near 0; each is reported once.

    Args:
        classes: Number of classes.
        learning_rate: Initial learning rate.
        training_images: Number of images of an epoch.

    Example:
        >>> monitor = LossMonitor(classes=10, learning_rate=0.1, training_images=1438)
        >>> monitor.update(2.0, images=64, learning_rate=1e-9)
        ['the learning rate has fallen to 1e-09: nothing changes any more']
    """

    def __init__(self, classes: int, learning_rate: float, training_images: int) -> None:
        self._chance_loss = math.log(classes)
        self._negligible_rate = learning_rate * NEGLIGIBLE_RATE
        self._patience = max(training_images, PATIENCE_PER_CLASS * classes)
        self._window = MetricTotals()
        self._images = 0
        self._reported: set[str] = set()

    def update(self, loss: float, images: int, learning_rate: float) -> list[str]:
        """Return the new warnings after a step, one sentence each.

        Args:
            loss: Mean loss of the step.
            images: Number of images of the step.
            learning_rate: Learning rate of the step.
        """
        messages = {}
        if learning_rate < self._negligible_rate:
            messages["rate"] = (
                f"the learning rate has fallen to {learning_rate:.1g}: nothing changes any more"
            )
        self._images += images
        self._window.add(images, loss * images, 0)
        if self._window.images >= WINDOW_FRACTION * self._patience:
            mean, self._window = self._window.mean_loss, MetricTotals()
            stuck = abs(mean - self._chance_loss) <= STUCK_TOLERANCE * self._chance_loss
            if stuck and self._images >= self._patience:
                messages["chance"] = (
                    f"after {self._images:,} images the loss is still ln(classes) = "
                    f"{self._chance_loss:.3f}, that of guessing (VGG-16 from scratch on ImageNet "
                    "leaves it after about 770,000 images); known cures: "
                    "`model_options={'initializer': 'glorot'}`, another learning rate, for AlexNet "
                    "`model_options={'bias_value': 0.1}` (Caffe's), for a deep VGG "
                    "`weight_mapping='vgg-staged'`"
                )
        new = [text for kind, text in messages.items() if kind not in self._reported]
        self._reported.update(messages)
        return new

    def update_epoch(
        self, config: TrainingConfig, state: TrainingState, metrics: Mapping[str, Any]
    ) -> list[str]:
        """Return a sentence if the network has become much worse than the best one before.

        Args:
            config: The configuration.
            state: The state of the run before this epoch counts.
            metrics: Metrics of the epoch.
        """
        best, lowest, error = state.best_accuracy, state.best_loss, 1 - metrics["val_accuracy"]
        if "diverged" in self._reported or best is None or lowest is None:
            return []
        rise = best - metrics["val_accuracy"]
        if rise <= DIVERGED_RISE or metrics["val_loss"] <= DIVERGED_LOSS_RATIO * lowest:
            return []
        self._reported.add("diverged")
        epoch = metrics["epoch"] - 1 - state.epochs_since_best
        when = f"after epoch {epoch}" if epoch else "before training"
        kept = (
            f"; best.keras is the network {when}"
            if config.keep_best or config.restore_best
            else ", and with `keep_best=True`, which keeps the best network"
        )
        return [
            f"the network has diverged: the error on the held-out images was {1 - best:.1%} {when} "
            f"and is {error:.1%} now; start again with a lower rate, "
            f"`learning_rate={config.learning_rate / LOWER_RATE:g}`{kept}"
        ]

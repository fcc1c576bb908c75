"""Learning-rate range test: train with ever larger rates and watch the loss (Smith 2017)."""

from __future__ import annotations

import contextlib
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnkit.config import TrainingConfig
from cnnkit.errors import RunError, UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training.distribute import get_strategy
from cnnkit.training.epoch import TrainingRun
from cnnkit.training.step_batches import training_batches
from cnnkit.training.train import prepare_run

# Weight of the losses before in the running mean, and factor of its minimum at which a sweep ends.
SMOOTHING = 0.8
DIVERGED_RATIO = 4
# The suggestion lies this factor below the rate of the lowest loss (Howard & Gugger 2020).
MARGIN = 10


@dataclass(frozen=True)
class LearningRateSweep:
    """Losses of a network that was trained with a rising learning rate.

    Attributes:
        rates: Learning rate of each step, rising.
        losses: Mean loss of the images of each step.
        suggestion: A tenth of the rate at which the running mean of the losses is lowest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float

    @classmethod
    def from_losses(cls, rates: list[float], losses: list[float]) -> LearningRateSweep:
        """Return a sweep with its suggestion.

        Args:
            rates: Learning rate of each step.
            losses: Loss of each step.

        Example:
            >>> LearningRateSweep.from_losses([1e-3, 1e-2, 1e-1, 1], [2, 1, 0.2, 9]).suggestion
            0.01
        """
        best = rates[int(np.argmin(running_mean(losses)))]
        return cls(tuple(rates), tuple(losses), float(f"{best / MARGIN:.2g}"))


def running_mean(losses: list[float]) -> list[float]:
    """Return the exponential running mean of losses, corrected for its start.

    Example:
        >>> [round(mean, 9) for mean in running_mean([2.0, 2.0, 2.0])]
        [2.0, 2.0, 2.0]
    """
    mean, smooth = 0.0, []
    for step, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth.append(mean / (1 - SMOOTHING**step))
    return smooth


def sweep_learning_rate(
    config: TrainingConfig,
    *,
    smallest: float = 1e-6,
    largest: float = 1.0,
    steps: int = 50,
    download: bool = False,
) -> LearningRateSweep:
    """Train a network for some steps, each with a larger learning rate, and record the losses.

    The sweep ends early when the loss has left its minimum far behind. Nothing is kept of the
    network. A factor of `lr_multipliers` for single layers holds in the sweep too.

    Args:
        config: The configuration, whose learning rate and schedule do not count.
        smallest: Learning rate of the first step.
        largest: Learning rate of the last step.
        steps: Number of steps.
        download: Whether a TensorFlow dataset may be downloaded.

    Raises:
        UsageError: If the range is empty, there are fewer than ten steps, or the configuration is
            wrong.
        DataError: If the dataset cannot be used.
        RunError: If the loss is not finite from the first step on.

    Example:
        >>> sweep = sweep_learning_rate(config)  # doctest: +SKIP
        >>> sweep.suggestion  # doctest: +SKIP
        0.0013
    """
    if not 0 < smallest < largest or steps < 10:
        raise UsageError(
            "`smallest` must be above 0 and below `largest`, and `steps` at least 10",
            received=f"{smallest}, {largest} and {steps}",
        )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as held:
        run = prepare_run(
            config,
            RunFolder(Path(folder) / "sweep"),
            get_strategy(config.strategy, config.replicas),
            resume=False,
            overwrite=False,
            download=download,
            verify=False,
            metadata={},
            held=held,
        )
        return _sweep(run, np.geomspace(smallest, largest, steps).tolist())


def _sweep(run: TrainingRun, rates: list[float]) -> LearningRateSweep:
    losses: list[float] = []
    for rate, batch in zip(rates, training_batches(run), strict=False):
        images = int(batch["weights"].numpy().sum())
        loss = float(run.components.step_runner.train(batch, images, rate).numpy()[0]) / images
        if not math.isfinite(loss):
            break
        losses.append(loss)
        smooth = running_mean(losses)
        if smooth[-1] > DIVERGED_RATIO * min(smooth):
            break
    if not losses:
        raise RunError(
            "`smallest` must be a learning rate at which the loss stays finite",
            received=f"{rates[0]:g}",
        )
    return LearningRateSweep.from_losses(rates[: len(losses)], losses)

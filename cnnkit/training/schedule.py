"""Learning rate schedules: step, plateau and cosine, each with a linear warm-up."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from cnnkit.config import TrainingConfig


@dataclass(frozen=True)
class PlateauState:
    """State of the schedule `"plateau"` (Krizhevsky et al. 2012, section 5).

    Attributes:
        best: Best accuracy on the held-out images so far.
        waited: Number of epochs since then, or since the last drop.
        drops: Number of drops of the learning rate so far.
    """

    best: float | None = None
    waited: int = 0
    drops: int = 0

    def after(self, accuracy: float, *, patience: int, max_drops: int) -> PlateauState:
        """Return the state after another epoch.

        Args:
            accuracy: Accuracy on the held-out images.
            patience: Number of epochs without improvement after which the learning rate drops.
            max_drops: Largest number of drops.

        Example:
            >>> PlateauState(best=0.5, waited=1).after(0.5, patience=2, max_drops=3)
            PlateauState(best=0.5, waited=0, drops=1)
        """
        if self.best is None or accuracy > self.best:
            return dataclasses.replace(self, best=accuracy, waited=0)
        if self.waited + 1 < patience or self.drops >= max_drops:
            return dataclasses.replace(self, waited=self.waited + 1)
        return dataclasses.replace(self, waited=0, drops=self.drops + 1)


def learning_rate_at(
    config: TrainingConfig,
    epoch: int,
    step: int = 0,
    steps: int = 1,
    plateau: PlateauState | None = None,
) -> float:
    """Return the learning rate of a step.

    Args:
        config: The schedule.
        epoch: The epoch, from 1.
        step: The step of the epoch, from 0.
        steps: Number of steps of an epoch.
        plateau: State of the schedule `"plateau"`.

    Example:
        >>> from cnnkit.config import TrainingConfig
        >>> learning_rate_at(TrainingConfig(lr_milestones=(3,)), 3)
        0.001
    """
    done = epoch - 1 + step / steps
    if done < config.warmup_epochs:
        # The step itself counts: a rate of 0 would waste the first one.
        return config.learning_rate * min(1.0, (done + 1 / steps) / config.warmup_epochs)
    if config.schedule == "cosine":
        part = (done - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
        return config.learning_rate * (1 + math.cos(math.pi * part)) / 2
    drops = sum(epoch >= milestone for milestone in config.lr_milestones)
    if config.schedule == "plateau":
        drops = 0 if plateau is None else plateau.drops
    return config.learning_rate * config.lr_decay**drops

"""The learning rate of an epoch."""

from __future__ import annotations

from cnnkit.config import TrainingConfig


def learning_rate(config: TrainingConfig, epoch: int) -> float:
    """Returns the learning rate of `epoch`, counted from 1.

    Example:
        >>> from cnnkit.config import TrainingConfig
        >>> learning_rate(TrainingConfig(drop_epochs=(3,)), 3)
        0.001
    """
    drops = sum(epoch >= drop for drop in config.drop_epochs)
    return config.learning_rate * config.drop_factor**drops

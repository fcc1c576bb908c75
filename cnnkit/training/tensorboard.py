"""Metrics in TensorBoard's format."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.training.progress import Progress

FOLDER = "tensorboard"
# A point of the training loss every so many steps.
EVERY = 10


class TensorBoard(Progress):
    """Writes losses, accuracies and the learning rate to the folder `tensorboard` of the run.

    Raises:
        UsageError: If TensorBoard is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError(
                "TensorBoard is not installed",
                hint='Install it with: pip install "cnnkit[tensorboard]"',
            )
        self._writer: Any = None

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Opens the file."""
        self._writer = tf.summary.create_file_writer(str(facts["run"] / FOLDER))

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float) -> None:
        """Writes the loss of every tenth step."""
        number = (epoch - 1) * steps + step
        if number % EVERY == 0:
            with self._writer.as_default():
                tf.summary.scalar("step/loss", loss, step=number)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Writes the metrics of an epoch."""
        with self._writer.as_default():
            for name, value in line.items():
                if name not in ("epoch", "step"):
                    tf.summary.scalar(f"epoch/{name}", value, step=line["epoch"])
        self._writer.flush()

    def end(self, seconds: Mapping[str, float]) -> None:
        """Closes the file."""
        self._writer.close()

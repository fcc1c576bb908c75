"""A few steps under TensorFlow's profiler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from cnnkit.training.progress import Progress

# The first steps trace and compile; what comes after is like all the rest.
FIRST_STEP, STEPS = 10, 5
FOLDER = "profile"


class Profile(Progress):
    """Writes the profile of a few steps to `profile` in the run folder, in TensorBoard's format.

    Args:
        first: Steps of this process before the profile begins.
        steps: Steps that are profiled.
    """

    def __init__(self, first: int = FIRST_STEP, steps: int = STEPS) -> None:
        self._first, self._last = first, first + steps
        self._folder: Path | None = None
        self._done = 0

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Remembers where the run is."""
        self._folder = facts["run"] / FOLDER

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float) -> None:
        """Begins and ends the profile."""
        self._done += 1
        if self._done == self._first:
            tf.profiler.experimental.start(str(self._folder))
        elif self._done == self._last:
            tf.profiler.experimental.stop()

    def end(self, seconds: Mapping[str, float]) -> None:
        """Ends the profile of a training that was shorter."""
        if self._first <= self._done < self._last:
            tf.profiler.experimental.stop()

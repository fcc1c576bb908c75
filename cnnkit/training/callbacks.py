"""What a training run tells while it works."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from cnnkit.errors import UsageError


class Callback:
    """Hears what happens; this one says nothing. Derive from it to show something."""

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Training begins; `facts` tells the model, the images, the devices and the epochs."""

    def note(self, text: str) -> None:
        """Something is worth knowing, though training goes on."""

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float) -> None:
        """A step of an epoch is done.

        Args:
            epoch: The epoch, counted from 1.
            step: The step in it, counted from 1.
            steps: Steps of an epoch.
            images: Images of the step.
            loss: Their mean loss.
        """

    def epoch(self, line: Mapping[str, Any]) -> None:
        """An epoch is done; `line` is its line of metrics."""

    def end(self, seconds: Mapping[str, float]) -> None:
        """Training has ended; `seconds` tells where the time of this process went."""


class CallbackList(Callback):
    """Passes on to several others."""

    def __init__(self, *listeners: Callback) -> None:
        self._listeners = listeners

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Passes it on."""
        for listener in self._listeners:
            listener.begin(facts)

    def note(self, text: str) -> None:
        """Passes it on."""
        for listener in self._listeners:
            listener.note(text)

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float) -> None:
        """Passes it on."""
        for listener in self._listeners:
            listener.step(epoch, step, steps, images, loss)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Passes it on."""
        for listener in self._listeners:
            listener.epoch(line)

    def end(self, seconds: Mapping[str, float]) -> None:
        """Passes it on."""
        for listener in self._listeners:
            listener.end(seconds)


TENSORBOARD_FOLDER = "tensorboard"
# A point of the training loss every so many steps.
TENSORBOARD_EVERY = 10


class TensorBoardCallback(Callback):
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
        self._writer = tf.summary.create_file_writer(str(facts["run"] / TENSORBOARD_FOLDER))

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float) -> None:
        """Writes the loss of every tenth step."""
        number = (epoch - 1) * steps + step
        if number % TENSORBOARD_EVERY == 0:
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


# The first steps trace and compile; what comes after is like all the rest.
FIRST_STEP, STEPS = 10, 5
PROFILE_FOLDER = "profile"


class ProfilerCallback(Callback):
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
        self._folder = facts["run"] / PROFILE_FOLDER

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

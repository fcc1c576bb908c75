"""What a training run tells while it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Progress:
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


class Several(Progress):
    """Passes on to several others."""

    def __init__(self, *listeners: Progress) -> None:
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

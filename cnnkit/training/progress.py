"""What a training run tells while it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Progress:
    """Hears what happens; this one says nothing. Derive from it to show something."""

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Training begins; `facts` tells the model, the images, the devices and the epochs."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """A step of an epoch is done; all are counted from 1."""

    def epoch(self, line: Mapping[str, Any]) -> None:
        """An epoch is done; `line` is its line of metrics."""

"""Training progress for people: a bar on a terminal, a line an epoch everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

from cnnkit.training import Progress


class TerminalProgress(Progress):
    """Writes to `out`; the bar appears only where standard error is a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._epochs = 0
        self._bar: tqdm | None = None

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Tells what is about to be trained, and on what."""
        self._epochs = facts["epochs"]
        devices = facts["devices"]
        replicas = f"{len(devices)} replica{'s' if len(devices) > 1 else ''} on the {devices[0]}"
        self._say(
            f"{facts['model']}, {facts['parameters']:,} parameters, {facts['classes']} classes; "
            f"{facts['training_images']:,} training and {facts['test_images']:,} held-out images; "
            f"{replicas}"
        )
        if facts["unreadable"]:
            files = facts["unreadable"]
            self._say(f"left out {len(files)} unreadable: {', '.join(files[:3])}")
        if facts["first_epoch"] > 1:
            self._say(f"going on with epoch {facts['first_epoch']}")

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Moves the bar."""
        if self._bar is None:
            label = f"epoch {epoch}/{self._epochs}"
            self._bar = tqdm(total=steps, desc=label, unit="step", leave=False, disable=None)
        self._bar.update()
        if step == steps:
            self._bar.close()
            self._bar = None

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Writes the line of an epoch."""
        self._say(
            f"epoch {line['epoch']}/{self._epochs}  loss {line['loss']:.3f}  "
            f"error {1 - line['accuracy']:.1%}  held out: loss {line['val_loss']:.3f}  "
            f"error {1 - line['val_accuracy']:.1%}  {line['images_per_second']:.0f} images/s"
        )

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

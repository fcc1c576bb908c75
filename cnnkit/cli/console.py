"""Training progress for people: a bar on a terminal, a line an epoch everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from cnnkit.training import Callback


class TerminalProgress(Callback):
    """Writes to `out`; the bar appears only where standard error is a terminal."""

    def __init__(self, out: TextIO, *, tells_times: bool = False) -> None:
        self._out = out
        self._tells_times = tells_times
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
        for deviation in facts["deviations"]:
            self._say(f"deviates from the paper: {deviation}")
        if facts["first_epoch"] > 1 or facts["first_step"] > 1:
            step = f", step {facts['first_step']}" if facts["first_step"] > 1 else ""
            self._say(f"going on with epoch {facts['first_epoch']}{step}")

    def note(self, text: str) -> None:
        """Writes the note as a line of its own."""
        self._say(f"note: {text}")

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float) -> None:
        """Moves the bar: images, images/s, the time that the epoch still takes, the loss."""
        if self._bar is None:
            self._bar = tqdm(
                total=steps * images,
                initial=(step - 1) * images,
                desc=f"epoch {epoch}/{self._epochs}",
                unit=" images",
                unit_scale=True,
                leave=False,
                disable=None,
            )
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update(images)
        if step == steps:
            self.close()

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Writes the line of an epoch."""
        self._say(
            f"epoch {line['epoch']}/{self._epochs}  loss {line['loss']:.3f}  "
            f"error {1 - line['accuracy']:.1%}  held out: loss {line['val_loss']:.3f}  "
            f"error {1 - line['val_accuracy']:.1%}  {line['images_per_second']:.0f} images/s"
        )

    def end(self, seconds: Mapping[str, float]) -> None:
        """Tells where the time went, where that was asked for."""
        if self._tells_times:
            total = sum(seconds.values()) or 1
            parts = (
                f"{name} {value:.1f} s ({value / total:.0%})" for name, value in seconds.items()
            )
            self._say(f"time: {', '.join(parts)}")

    def close(self) -> None:
        """Takes the bar away, where one is left."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, text: str) -> None:
        # The bar and the lines share a terminal.
        with tqdm.external_write_mode(file=self._out):
            print(text, file=self._out, flush=True)


class EvaluationBar(tqdm):
    """Images of an evaluation: how many, images/s, the time that is left; only on a terminal."""

    def __init__(self, total: int) -> None:
        super().__init__(total=total, unit=" images", leave=False, disable=None)
        self._begun = False

    def done(self, images: int) -> None:
        """Moves the bar; what the first call tells was done before, and is no measure of speed."""
        if self._begun or self.disable:
            self.update(images)
        else:
            self.n = self.last_print_n = self.initial = images
            self.refresh()
        self._begun = True


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Returns rows of the same fields as a table for people; numbers stand on the right."""
    cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [_is_number(row) for row in zip(*(row.values() for row in rows), strict=True)]
    lines = []
    for line in cells:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _is_number(values: Iterable[object]) -> bool:
    return all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        for value in values
    )


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)

"""Progress of a training run: the metrics of its epochs, and of the network before training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnkit._untrusted.damage import damage_as_error
from cnnkit._untrusted.json_documents import JsonFields, parse_json, read_json
from cnnkit._untrusted.limits import MAX_JSON_BYTES
from cnnkit._untrusted.npy_arrays import open_npz
from cnnkit._untrusted.regular_files import read_bytes
from cnnkit.errors import CnnkitError, DataError, RunError

# Entry of a checkpoint with the position of the run, a JSON text.
STATE_KEY = "state"


@dataclass(frozen=True)
class RunProgress:
    """Metrics of a run, read once.

    Attributes:
        lines: Metrics of each epoch, in order.
        initial: Held-out metrics of the network before training, as epoch 0; None if not known.
        restores_best: Whether the trained network is the best one, not the last one.
        lacks_initial: Whether the network before training may have been the best one, which no file
            of the run tells.
    """

    lines: Sequence[dict[str, Any]]
    initial: dict[str, Any] | None = None
    restores_best: bool = False
    lacks_initial: bool = False

    @property
    def best(self) -> dict[str, Any] | None:
        """Metrics of the epoch with the lowest error on the held-out images; None before the first.

        Of equal errors, the lower loss decides. Epoch 0 is the network before training.
        """
        return max(
            [*([] if self.initial is None else [self.initial]), *self.lines],
            key=lambda line: (
                line["val_accuracy"],
                -(math.inf if line["val_loss"] is None else line["val_loss"]),
            ),
            default=None,
        )

    @property
    def result(self) -> dict[str, Any] | None:
        """Metrics of the epoch whose network is the trained one; None before the first epoch."""
        return self.best if self.restores_best else next(reversed(self.lines), None)


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Read the metrics of each epoch; a last line that a crash truncated is left out.

    Losses that were not finite are None.

    Raises:
        RunError: If the file cannot be read.
    """
    with damage_as_error(file, RunError):
        *whole, rest = read_bytes(file, max_bytes=MAX_JSON_BYTES).split(b"\n")
        lines = [_read_line(line, f"line {n} of {file}") for n, line in enumerate(whole, 1)]
        # The line was written whole, and the crash came before its end.
        with suppress(DataError):
            lines += [_read_line(rest, file)] if rest else []
    return lines


def read_initial(file: Path) -> dict[str, Any] | None:
    """Read the held-out metrics of the network before training; None if there is no such file.

    Raises:
        RunError: If the file cannot be read.
    """
    if not file.exists():
        return None
    with damage_as_error(file, RunError):
        fields = JsonFields(read_json(file, nan=True), file)
        return _initial(fields, "val_accuracy", "val_loss")


def initial_of_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, bool]:
    """Return the metrics of the network before training if a checkpoint says that it is the best.

    Runs of early versions have no file of these metrics, but the newest checkpoint holds those of
    the best network, and the number of epochs since then.

    Args:
        folder: Folder of the checkpoints.

    Returns:
        The metrics, or None; and whether a checkpoint told it.
    """
    for file in sorted(folder.glob("step-*.npz"), reverse=True):
        # The next one may be whole. Training tells what is wrong with this one.
        with suppress(CnnkitError), damage_as_error(file):
            text = open_npz(file).read(STATE_KEY).tobytes()
            state = JsonFields(parse_json(text, file), file)
            epochs = state.integer("epochs")
            if state.document.get("best_accuracy") is None:
                return None, True
            is_before = state.integer("epochs_since_best", default=0) >= epochs
            return (_initial(state, "best_accuracy", "best_loss") if is_before else None), True
    return None, False


def _initial(fields: JsonFields, accuracy: str, loss: str) -> dict[str, Any]:
    return {
        "epoch": 0,
        "val_accuracy": fields.number(accuracy),
        "val_loss": _finite(fields, loss),
    }


def _read_line(line: bytes, origin: str | Path) -> dict[str, Any]:
    """Return the metrics of one epoch; numbers of a line of version 0.1.0 may be NaN."""
    fields = JsonFields(parse_json(line, origin, nan=True), origin)
    fields.integer("epoch", minimum=1)
    for name in ("accuracy", "val_accuracy", "learning_rate", "images_per_second"):
        fields.number(name)
    return {**fields.document, **{name: _finite(fields, name) for name in ("loss", "val_loss")}}


def _finite(fields: JsonFields, name: str) -> float | None:
    value = fields.document.get(name)
    not_finite = value is None or (isinstance(value, float) and not math.isfinite(value))
    return None if not_finite else fields.number(name)

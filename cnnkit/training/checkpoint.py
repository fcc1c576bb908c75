"""Checkpoints: the state of a run after a step, in one file that is whole or absent."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._files import staged_file, write_text
from cnnkit.config import TrainingConfig
from cnnkit.data import Dataset
from cnnkit.errors import RunError, UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training.schedule import PlateauState


@dataclass
class MetricTotals:
    """Sums over the images that were shown since the epoch began.

    Attributes:
        images: How many images.
        loss: Sum of their losses.
        right: How many of them were classified rightly.
        seconds: Time that it took.
    """

    images: int = 0
    loss: float = 0.0
    right: float = 0.0
    seconds: float = 0.0

    def add(self, images: int, loss: float, right: float) -> None:
        """Counts a step."""
        self.images += images
        self.loss += loss
        self.right += right

    @property
    def mean_loss(self) -> float:
        """Mean loss of an image."""
        return self.loss / self.images

    @property
    def accuracy(self) -> float:
        """Part of the images that were classified rightly, 0..1."""
        return self.right / self.images


@dataclass
class TrainingState:
    """The place that a run has come to.

    Attributes:
        epochs: Whole epochs that are done.
        step: Steps of the next epoch that are done.
        totals: Sums over those steps.
        plateau: What the schedule `"plateau"` remembers.
        best_accuracy: Best accuracy on the held-out images so far, None before the first.
        reached: Whether the training error that ends training has been reached.
    """

    epochs: int = 0
    step: int = 0
    totals: MetricTotals = field(default_factory=MetricTotals)
    plateau: PlateauState = field(default_factory=PlateauState)
    best_accuracy: float | None = None
    reached: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Returns the state as plain values; floats keep every bit through JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TrainingState:
        """Reads what `to_dict` returned."""
        parts = {
            "totals": MetricTotals(**fields["totals"]),
            "plateau": PlateauState(**fields["plateau"]),
        }
        return cls(**{**fields, **parts})

    def next_epoch(self) -> None:
        """Moves on to the beginning of the next epoch."""
        self.epochs += 1
        self.step = 0
        self.totals = MetricTotals()


STATE = "state"


def save_checkpoint(
    folder: Path, number: int, state: TrainingState, variables: Sequence, *, kept: int = 2
) -> Path:
    """Writes the variables after step `number` and lets go of the older checkpoints.

    Args:
        folder: Where the checkpoints are.
        number: Steps that were taken since training began.
        state: Where the run stands.
        variables: Keras variables: weights, the optimizer's state, the state of dropout's seeds.
        kept: Newest checkpoints that are kept.

    Returns:
        The file.

    Raises:
        RunError: If a variable is no longer finite, or the file cannot be written; the checkpoints
            before it stay.
    """
    file = folder / f"step-{number:09d}.npz"
    arrays = {f"{i:05d}": np.asarray(variable.value) for i, variable in enumerate(variables)}
    for name, variable in zip(arrays, variables, strict=True):
        if not np.all(np.isfinite(arrays[name])):
            raise RunError(
                f"The weights are no longer finite at step {number} ({variable.path})",
                hint="Lower the learning rate and start afresh",
            )
    text = json.dumps(state.to_dict()).encode()
    with staged_file(file) as aside, aside.open("wb") as handle:
        np.savez(handle, **arrays, **{STATE: np.frombuffer(text, np.uint8)})
    for old in checkpoints_newest_first(folder)[kept:]:
        old.unlink()
    return file


def restore_checkpoint(folder: Path, variables: Sequence) -> TrainingState:
    """Fills the variables from the newest checkpoint that can be read.

    Returns:
        Where the run stands; at its beginning where there is no checkpoint.

    Raises:
        RunError: If the checkpoint holds other variables.
    """
    for file in checkpoints_newest_first(folder):
        try:
            with file.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
                text = archive[STATE].tobytes()
                arrays = [archive[name] for name in sorted(set(archive.files) - {STATE})]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Torn by a crash of the machine: the one before it is whole.
            continue
        expected = [tuple(variable.shape) for variable in variables]
        if [array.shape for array in arrays] != expected:
            raise RunError(
                f"The checkpoint {file} is of another network",
                expected=f"{len(expected)} variables of this network's shapes",
                received=f"{len(arrays)} variables",
                hint="Resume with the version and the network that wrote it",
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return TrainingState.from_dict(json.loads(text))
    return TrainingState()


def checkpoints_newest_first(folder: Path) -> list[Path]:
    """Returns the checkpoints of a folder, readable or not."""
    return sorted(folder.glob("step-*.npz"), reverse=True)


# A longer training continues the same one, so a resumed run may ask for more of it, and its state
# may be written down more or less often.
CHANGEABLE = {"epochs", "checkpoint_every", "keep_checkpoints", "keep_epochs"}


def check_resumable_configuration(run: RunFolder, config: TrainingConfig) -> None:
    """Makes sure that `config` continues `run`.

    Raises:
        UsageError: If it computes something else; the fields are named.
    """
    changeable = CHANGEABLE - ({"epochs"} if config.schedule == "cosine" else set())
    differences = run.config.differences(config)
    wrong = {name: values for name, values in differences.items() if name not in changeable}
    if wrong:
        raise UsageError(
            f"The run {run.path} was started with another configuration",
            received="; ".join(
                f"{name} {was!r}, now {now!r}" for name, (was, now) in wrong.items()
            ),
            hint="Resume it as it was, or use another --output",
        )
    done = len(run.metrics)
    if config.epochs < done:
        raise UsageError(
            f"The run {run.path} is past the end asked for",
            expected=f"epochs of at least {done}",
            received=config.epochs,
        )


def check_resumable_dataset(run: RunFolder, source: Dataset) -> None:
    """Makes sure that the dataset is the one that `run` was started on.

    Raises:
        RunError: If it has changed.
    """
    before = run.environment["dataset"]["fingerprint"]
    if before != source.fingerprint:
        raise RunError(
            f"The dataset {source.spec} has changed since the run {run.path} was started",
            expected=f"fingerprint {before[:12]}",
            received=source.fingerprint[:12],
            hint="Restore it, or train afresh in another --output",
        )


def truncate_metrics(run: RunFolder, epochs: int) -> None:
    """Drops the lines after the checkpoint: those epochs are trained again.

    Raises:
        RunError: If lines before the checkpoint are missing.
    """
    lines = [line for line in run.metrics if line["epoch"] <= epochs]
    if [line["epoch"] for line in lines] != list(range(1, epochs + 1)):
        raise RunError(
            f"{run.metrics_file} lacks epochs that the checkpoint has behind it",
            expected=f"lines for the epochs 1 to {epochs}",
            received=f"{len(lines)} lines",
        )
    write_text(run.metrics_file, "".join(json.dumps(line) + "\n" for line in lines))

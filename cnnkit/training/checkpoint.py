"""Write and restore checkpoints, and validate that a run can be resumed.

A checkpoint is one `.npz` file: the variables after a step, and the state of the run as JSON. The
file is complete or absent.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnkit._files import json_text, write_text
from cnnkit._run_progress import STATE_KEY
from cnnkit._staging import staged_file, write_errors
from cnnkit._untrusted.json_documents import JsonFields, parse_json
from cnnkit._untrusted.npy_arrays import open_npz
from cnnkit.config import TrainingConfig
from cnnkit.data import Dataset
from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.run_folder import ENVIRONMENT, RunFolder
from cnnkit.training.schedule import PlateauState


@dataclass
class MetricTotals:
    """Sums over the images of the current epoch.

    Attributes:
        images: Number of images.
        loss: Sum of their losses.
        correct: Number of correctly classified images.
        seconds: Time of the steps.
    """

    images: int = 0
    loss: float = 0.0
    correct: float = 0.0
    seconds: float = 0.0

    def add(self, images: int, loss: float, correct: float) -> None:
        """Add the sums of a step."""
        self.images += images
        self.loss += loss
        self.correct += correct

    @property
    def mean_loss(self) -> float:
        """Mean loss of an image."""
        return self.loss / self.images

    @property
    def accuracy(self) -> float:
        """Fraction of the images that are classified correctly, 0..1."""
        return self.correct / self.images


class DivergedError(RunError):
    """The loss or a weight is no longer finite."""


@dataclass
class TrainingState:
    """Position of a run, and what its next steps depend on.

    Attributes:
        epochs: Number of finished epochs.
        step: Number of finished steps of the next epoch.
        totals: Sums over those steps.
        plateau: State of the schedule `"plateau"`.
        best_accuracy: Best accuracy on the held-out images so far, None before the first epoch.
        best_loss: Held-out loss of that epoch, the lowest one among those of the best accuracy.
        epochs_since_best: Number of epochs since then.
        reached: Whether training ends before its last epoch: `stop_at_train_error` has been
            reached, `early_stopping_patience` is over, or a callback of Keras ended it.
    """

    epochs: int = 0
    step: int = 0
    totals: MetricTotals = field(default_factory=MetricTotals)
    plateau: PlateauState = field(default_factory=PlateauState)
    best_accuracy: float | None = None
    reached: bool = False
    best_loss: float | None = None
    epochs_since_best: int = 0

    def update_best(self, accuracy: float, loss: float) -> bool:
        """Take the held-out accuracy and loss of an epoch, and return whether it is the best one.

        Example:
            >>> state = TrainingState()
            >>> [state.update_best(*pair) for pair in ((0.9, 0.4), (0.9, 0.3), (0.8, 0.2))]
            [True, True, False]
        """
        best, lowest = self.best_accuracy, self.best_loss
        is_best = (
            best is None
            or accuracy > best
            or (accuracy == best and lowest is not None and loss < lowest)
        )
        self.epochs_since_best = 0 if is_best else self.epochs_since_best + 1
        if is_best:
            self.best_accuracy, self.best_loss = accuracy, loss
        return is_best

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain values. Floats keep every bit through JSON."""
        fields = dataclasses.asdict(self)
        # The key of version 0.1.0.
        fields["totals"]["right"] = fields["totals"].pop("correct")
        return fields

    @classmethod
    def from_dict(cls, fields: Any, origin: str | Path = "the state") -> TrainingState:
        """Return the state that `to_dict` wrote.

        Args:
            fields: The result of `to_dict`.
            origin: The file that it was read from, for messages.

        Raises:
            DataError: If a value is missing, or of another type or range.
        """
        state = JsonFields(fields, origin)
        totals, plateau = state.fields("totals"), state.fields("plateau")

        def accuracy(part: JsonFields, name: str) -> float | None:
            known = name not in part or part.document[name] is not None
            return part.number(name, minimum=0, maximum=1) if known else None

        def known(name: str) -> bool:
            return state.document.get(name) is not None

        return cls(
            epochs=state.integer("epochs"),
            step=state.integer("step"),
            totals=MetricTotals(
                images=totals.integer("images"),
                loss=totals.number("loss"),
                correct=totals.number("right", minimum=0),
                seconds=totals.number("seconds", minimum=0),
            ),
            plateau=PlateauState(
                accuracy(plateau, "best"), plateau.integer("waited"), plateau.integer("drops")
            ),
            best_accuracy=accuracy(state, "best_accuracy"),
            reached=state.boolean("reached"),
            best_loss=state.number("best_loss", minimum=0) if known("best_loss") else None,
            epochs_since_best=state.integer("epochs_since_best", default=0),
        )

    def next_epoch(self) -> None:
        """Move to the beginning of the next epoch."""
        self.epochs += 1
        self.step = 0
        self.totals = MetricTotals()


def save_checkpoint(
    folder: Path,
    global_step: int,
    state: TrainingState,
    variables: Sequence[keras.Variable],
    *,
    keep: int = 2,
) -> Path:
    """Write the variables and the state after a step, and delete old checkpoints.

    Args:
        folder: Folder of the checkpoints.
        global_step: Number of steps since training began.
        state: The state of the run.
        variables: Weights, optimizer state, and seeds of dropout.
        keep: Number of checkpoints to keep, the newest ones.

    Returns:
        Path of the new file.

    Raises:
        DivergedError: If a variable is not finite; the earlier checkpoints are kept.
        RunError: If the file cannot be written.
    """
    file = folder / f"step-{global_step:09d}.npz"
    arrays: dict[str, Any] = {
        f"{i:05d}": np.asarray(variable.value) for i, variable in enumerate(variables)
    }
    for name, variable in zip(arrays, variables, strict=True):
        if not np.all(np.isfinite(arrays[name])):
            raise DivergedError(
                f"The weights are no longer finite at step {global_step} ({variable.path})",
                hint="Lower the learning rate and start again",
            )
    text = json.dumps(state.to_dict()).encode()
    arrays[STATE_KEY] = np.frombuffer(text, np.uint8)
    with staged_file(file) as staging, staging.open("wb") as handle:
        np.savez(handle, **arrays)
    with write_errors(folder):
        for old in checkpoints_newest_first(folder)[keep:]:
            old.unlink()
    return file


def restore_checkpoint(
    folder: Path,
    variables: Sequence[keras.Variable],
    *,
    report: Callable[[str], object] = lambda message: None,
) -> TrainingState:
    """Assign the newest readable checkpoint to the variables.

    Args:
        folder: Folder of the checkpoints.
        variables: The variables, in the order of `save_checkpoint`.
        report: Called with a sentence for each newer checkpoint that is damaged.

    Returns:
        The state of the run; the initial state if there is no checkpoint.

    Raises:
        RunError: If the checkpoint holds variables of other shapes, or all of them are damaged.
    """
    files = checkpoints_newest_first(folder)
    for file in files:
        try:
            arrays = open_npz(file)
            text = arrays.read(STATE_KEY).tobytes()
            state = TrainingState.from_dict(parse_json(text, file), file)
            names = sorted(set(arrays.headers) - {STATE_KEY})
            expected = [(tuple(one.shape), np.asarray(one.value).dtype) for one in variables]
            found = [(arrays.headers[name].shape, arrays.headers[name].dtype) for name in names]
            if found != expected:
                raise RunError(
                    f"The checkpoint {file} is of another network",
                    expected=f"{len(expected)} variables of this network's shapes",
                    received=f"{len(found)} variables",
                    hint="Resume with the version and the network that wrote it",
                )
            values = [arrays.read(name) for name in names]
        except DataError as error:
            report(f"a checkpoint is damaged, and the one before it is used: {error}")
            continue
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return state
    if files:
        raise RunError(
            f"No checkpoint in {folder} can be read",
            received=", ".join(file.name for file in reversed(files)),
            hint="Restore one of them from a copy, or start again with `overwrite=True`",
        )
    return TrainingState()


def restore_run(
    config: TrainingConfig,
    run: RunFolder,
    variables: Sequence[keras.Variable],
    *,
    report: Callable[[str], object],
) -> TrainingState:
    """Restore the newest checkpoint of a run, and drop what was written after it.

    Args:
        config: The configuration of the resumed run, which is written.
        run: The run folder.
        variables: As in `restore_checkpoint`.
        report: As in `restore_checkpoint`.

    Raises:
        RunError: As `restore_checkpoint`; or if files cannot be written, or lack earlier epochs.
    """
    run.remove_partial_files()
    state = restore_checkpoint(run.checkpoints, variables, report=report)
    truncate_metrics(run, state.epochs)
    run.write_config(config)
    return state


def checkpoints_newest_first(folder: Path) -> list[Path]:
    """Return the checkpoint files of a folder, readable or not."""
    return sorted(folder.glob("step-*.npz"), reverse=True)


# A resumed run may be longer, may write and keep files more or less often, and may find its dataset
# in another place: `check_resumable_dataset` compares the images.
CHANGEABLE = {"epochs", "checkpoint_every", "keep_checkpoints", "keep_epochs", "dataset"}


def check_resumable_configuration(run: RunFolder, config: TrainingConfig) -> None:
    """Check that `config` continues `run`.

    Raises:
        UsageError: If a field differs that changes the computation; the fields are named.
    """
    # The cosine schedule depends on the number of epochs.
    changeable = CHANGEABLE - ({"epochs"} if config.schedule == "cosine" else set())
    differences = run.config.differences(config)
    wrong = {name: values for name, values in differences.items() if name not in changeable}
    if wrong:
        raise UsageError(
            f"The run {run.path} was started with another configuration",
            received="; ".join(
                f"{name} {was!r}, now {now!r}" for name, (was, now) in wrong.items()
            ),
            hint="Resume it with its own configuration, or use another `output`",
        )
    done = len(run.metrics)
    if config.epochs < done:
        raise UsageError(
            f"The run {run.path} has more epochs than `epochs`",
            expected=f"epochs of at least {done}",
            received=config.epochs,
        )


def check_resumable_dataset(run: RunFolder, dataset: Dataset) -> None:
    """Check that `dataset` is the one that `run` was started on.

    Raises:
        RunError: If its fingerprint differs.
    """
    facts = JsonFields(run.environment, run.path / ENVIRONMENT)
    before = facts.fields("dataset").text("fingerprint")
    if before != dataset.fingerprint:
        raise RunError(
            f"The dataset {dataset.spec} is not that of the run {run.path}, or has changed since",
            expected=f"fingerprint {before[:12]}",
            received=dataset.fingerprint[:12],
            hint="Restore it or give its place by `dataset`, or train in another `output`",
        )


def truncate_metrics(run: RunFolder, epochs: int) -> None:
    """Drop the metrics of epochs after the checkpoint, which are trained again.

    Of an epoch that stands there twice, because two processes trained in a folder of version 0.1.0,
    the later line is kept.

    Args:
        run: The run folder.
        epochs: Number of finished epochs of the checkpoint.

    Raises:
        RunError: If the metrics of earlier epochs are missing.
    """
    by_epoch = {line["epoch"]: line for line in run.metrics if line["epoch"] <= epochs}
    lines = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    if [line["epoch"] for line in lines] != list(range(1, epochs + 1)):
        raise RunError(
            f"{run.metrics_file} lacks epochs before the checkpoint",
            expected=f"lines for the epochs 1 to {epochs}",
            received=f"{len(lines)} lines",
        )
    write_text(run.metrics_file, "".join(json_text(line) + "\n" for line in lines))

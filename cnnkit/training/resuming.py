"""Whether a run may go on as it is asked to, and where from."""

from __future__ import annotations

import json

from cnnkit.config import TrainingConfig
from cnnkit.data import Source
from cnnkit.errors import RunError, UsageError
from cnnkit.runs import Run
from cnnkit.writing import write_text

# A longer training continues the same one, so a resumed run may ask for more of it, and its state
# may be written down more or less often.
CHANGEABLE = {"epochs", "checkpoint_every", "keep_checkpoints", "keep_epochs"}


def check_same_configuration(run: Run, config: TrainingConfig) -> None:
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


def check_same_dataset(run: Run, source: Source) -> None:
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


def keep_metrics(run: Run, epochs: int) -> None:
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

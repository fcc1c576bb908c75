"""The run folder: everything that a training run leaves behind.

config.json        what was asked for
environment.json   what it ran on, and the dataset's fingerprint
metrics.jsonl      one line an epoch
labels.txt         the class names, one a line
statistics.npz     what was measured of the training images: their mean, their colors
checkpoints/       where training can go on from
model.keras        the trained network
best.keras         the most accurate one so far, where it was asked for
epochs/            the network after chosen epochs, where it was asked for
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._files import STAGING_PREFIX, staged_file, write_text
from cnnkit.config import TrainingConfig
from cnnkit.errors import RunError, UsageError

CONFIG = "config.json"
LABELS = "labels.txt"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
MODEL = "model.keras"
BEST = "best.keras"
EPOCHS = "epochs"
STATISTICS = "statistics.npz"
# What a run that was stopped while it was being created may have left; CONFIG comes last.
BEGINNINGS = {LABELS, ENVIRONMENT, METRICS, CHECKPOINTS, STATISTICS}


@dataclass(frozen=True)
class RunFolder:
    """A run folder.

    Example:
        >>> from cnnkit.run_folder import RunFolder
        >>> RunFolder.open("runs/demo").labels[:3]  # doctest: +SKIP
        ('0', '1', '2')
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Opens an existing run folder.

        Raises:
            UsageError: If there is none at `path`.
        """
        run = cls(Path(path))
        if not run.exists():
            raise UsageError(f"No run folder {path}", expected="a folder that `cnnkit train` wrote")
        return run

    def exists(self) -> bool:
        """Tells whether the folder holds a run."""
        return (self.path / CONFIG).is_file()

    def check_free(self, *, overwrite: bool) -> None:
        """Makes sure that a new run may be written here.

        Raises:
            UsageError: If something is here already that was not given up by `overwrite`. A folder
                that is no run is never given up.
        """
        if not self.path.exists():
            return
        if self.path.is_dir() and {entry.name for entry in self.path.iterdir()} <= BEGINNINGS:
            return
        if not self.exists():
            raise UsageError(f"{self.path} exists and is no run folder", expected="a free path")
        if not overwrite:
            raise UsageError(
                f"The run folder {self.path} exists",
                hint="--resume goes on with it, --overwrite starts afresh",
            )

    def create(
        self,
        config: TrainingConfig,
        labels: Iterable[str],
        environment: dict[str, Any],
        statistics: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts the folder afresh; call `check_free` first."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.checkpoints.mkdir(parents=True)
        write_text(self.path / LABELS, "".join(f"{label}\n" for label in labels))
        write_text(self.path / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
        write_text(self.metrics_file, "")
        with staged_file(self.path / STATISTICS) as aside, aside.open("wb") as file:
            np.savez(file, **(statistics or {}))
        # Last, because its presence is what makes a folder a run.
        self.write_config(config)

    def write_config(self, config: TrainingConfig) -> None:
        """Writes down what is asked for."""
        write_text(self.path / CONFIG, config.to_json())

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def model_file(self) -> Path:
        """The file of the trained network."""
        return self.path / MODEL

    @property
    def best_file(self) -> Path:
        """The file of the network that was most accurate on the held-out images."""
        return self.path / BEST

    def epoch_file(self, epoch: int) -> Path:
        """Returns the file of the network as it was after `epoch`."""
        return self.path / EPOCHS / f"{epoch:04d}.keras"

    @property
    def kept_epochs(self) -> dict[int, Path]:
        """The files of the networks that were kept, by epoch, in their order."""
        files = sorted((self.path / EPOCHS).glob("[0-9]*.keras"))
        return {int(file.stem): file for file in files}

    @property
    def metrics_file(self) -> Path:
        """The file of the metrics."""
        return self.path / METRICS

    @property
    def config(self) -> TrainingConfig:
        """What was asked for."""
        file = self.path / CONFIG
        return TrainingConfig.from_json(file.read_text(), file)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names."""
        return tuple((self.path / LABELS).read_text().splitlines())

    @property
    def statistics(self) -> dict[str, np.ndarray]:
        """What was measured of the training images, by name."""
        with np.load(self.path / STATISTICS, allow_pickle=False) as archive:
            return dict(archive)

    @property
    def environment(self) -> dict[str, Any]:
        """What the run ran on."""
        facts: dict[str, Any] = json.loads((self.path / ENVIRONMENT).read_text())
        return facts

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dictionary an epoch; a last line that was torn by a crash is left out."""
        lines = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def remove_torn(self) -> None:
        """Removes what a process that was killed had written aside and not yet renamed."""
        for folder in (self.path, self.checkpoints, self.path / EPOCHS):
            for aside in folder.glob(f"{STAGING_PREFIX}*"):
                aside.unlink()

    def finished_model(self) -> Path:
        """Returns the file of the trained network.

        Raises:
            RunError: If training has not come to its end.
        """
        if not self.model_file.is_file():
            raise RunError(
                f"The run {self.path} has no model yet",
                expected=f"training that came to its end after {self.config.epochs} epochs",
                received=f"{len(self.metrics)} epochs",
                hint=f"`cnnkit train --resume --output {self.path}` goes on with it",
            )
        return self.model_file

"""The run folder: every file that a training run writes.

config.json        the configuration
environment.json   versions, devices and command, and the fingerprint of the dataset
metrics.jsonl      one line per epoch
labels.txt         the class names, one per line
statistics.npz     mean and color statistics of the training images
checkpoints/       states from which training can be resumed
model.keras        the trained network
best.keras         the most accurate network so far, with `keep_best`
epochs/            the networks after chosen epochs, with `keep_epochs`
.lock              held by the process that trains
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._file_tree import MODEL as MODEL
from cnnkit._file_tree import STAGES_FILE, stages_hint
from cnnkit._files import join_lines, json_text, read_lines, write_text
from cnnkit._networks import IMAGENET
from cnnkit._run_progress import (
    RunProgress,
    initial_of_checkpoint,
    read_initial,
    read_metrics,
)
from cnnkit._staging import (
    STAGING_PREFIX,
    check_no_mount,
    exclusive_lock,
    remove_abandoned,
    staged_file,
    staged_folder,
    write_errors,
)
from cnnkit._untrusted.damage import damage_as_error
from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit._untrusted.limits import MAX_JSON_BYTES, MAX_STATISTICS_BYTES
from cnnkit._untrusted.npy_arrays import load_npz
from cnnkit._untrusted.regular_files import read_bytes
from cnnkit.config import TrainingConfig
from cnnkit.errors import RunError, UsageError

CONFIG = "config.json"
LABELS = "labels.txt"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
# Held-out metrics of the network before training, where they were measured.
INITIAL = "initial.json"
CHECKPOINTS = "checkpoints"
BEST = "best.keras"
EPOCHS = "epochs"
STATISTICS = "statistics.npz"
LOCK = ".lock"
# Entries of a folder whose creation version 0.1.0 left unfinished: it wrote CONFIG last.
INCOMPLETE = {LABELS, ENVIRONMENT, METRICS, CHECKPOINTS, STATISTICS}
# What is left, beside a lock, of a run whose deletion was not finished.
LEFT_OVER = INCOMPLETE | {INITIAL, MODEL, BEST, EPOCHS, "tensorboard", "profile"}


@dataclass(frozen=True)
class RunFolder:
    """A run folder.

    Attributes:
        path: Path of the folder.

    Example:
        >>> from cnnkit.run_folder import RunFolder
        >>> RunFolder.open("runs/demo").class_names[:3]  # doctest: +SKIP
        ('0', '1', '2')
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run folder.

        Raises:
            UsageError: If `path` is not a run folder.
        """
        run = cls(Path(path))
        if not run.exists():
            hint = stages_hint(run.path)
            if (run.path / LOCK).is_file():
                hint = "It was never begun: start without `resume`, or with `overwrite=True`"
            raise UsageError(
                f"No run folder {path}", expected="a folder that `cnnkit train` wrote", hint=hint
            )
        return run

    def _repr_html_(self) -> str:
        """Return the progress, the errors and the configuration for a notebook."""
        from cnnkit._html.run_summary import run_summary

        return run_summary(self)

    def exists(self) -> bool:
        """Return True if the folder contains a run."""
        return (self.path / CONFIG).is_file()

    def check_available(self, *, overwrite: bool) -> None:
        """Check that a new run may be written here.

        Args:
            overwrite: Whether an existing run may be deleted.

        Raises:
            UsageError: If the path cannot be created, is a mount point, or exists and may not be
                deleted. A folder that is not a run folder is never deleted, unless it is empty.
        """
        if not self.path.exists():
            parent = next(folder for folder in self.path.absolute().parents if folder.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK):
                raise UsageError(f"{self.path} cannot be created in {parent}")
            return
        check_no_mount(self.path)
        entries = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else {""}
        known = LEFT_OVER if LOCK in entries else INCOMPLETE
        # A creation that failed leaves its lock, and a process that was killed its staging files.
        entries = {name for name in entries if name != LOCK and not name.startswith(STAGING_PREFIX)}
        if not entries:
            return
        if not self.exists() and not entries <= known:
            raise UsageError(f"{self.path} exists and is not a run folder", expected="a free path")
        if not overwrite:
            raise UsageError(
                f"The run folder {self.path} exists",
                hint="`resume` continues it, `overwrite` starts again"
                if self.exists()
                else "It was never begun: `overwrite` starts again",
            )

    def create(
        self,
        config: TrainingConfig,
        class_names: Iterable[str],
        environment: dict[str, Any],
        statistics: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = True,
    ) -> None:
        """Create the folder, whole or not at all.

        A run that was there is deleted once the new one is complete.

        Args:
            config: The configuration.
            class_names: The class names.
            environment: Contents of environment.json.
            statistics: Arrays of statistics.npz.
            overwrite: Whether an existing run may be deleted.

        Raises:
            UsageError: As `check_available`.
            DataError: If a class name contains a line break; nothing is deleted then.
            RunError: If the folder cannot be written, or another process trains in it.
        """
        names = join_lines(class_names)
        held = self.lock() if self.path.is_dir() else nullcontext()
        with held, staged_folder(self.path, replace=True) as staging:
            self.check_available(overwrite=overwrite)
            run = RunFolder(staging)
            run.checkpoints.mkdir()
            write_text(staging / LABELS, names)
            write_text(staging / ENVIRONMENT, json_text(environment, indent=2) + "\n")
            write_text(run.metrics_file, "")
            with staged_file(staging / STATISTICS) as arrays, arrays.open("wb") as file:
                np.savez(file, **(statistics or {}))
            run.write_config(config)

    def lock(self) -> AbstractContextManager[None]:
        """Return a context that holds the folder, so that no other process trains in it.

        Raises:
            RunError: If another process holds it.
        """
        return exclusive_lock(self.path / LOCK, f"The run folder {self.path}")

    def write_config(self, config: TrainingConfig) -> None:
        """Write config.json."""
        write_text(self.path / CONFIG, config.to_json())

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def model_file(self) -> Path:
        """File of the trained network."""
        return self.path / MODEL

    @property
    def best_file(self) -> Path:
        """File of the network with the best accuracy on the held-out images."""
        return self.path / BEST

    def epoch_file(self, epoch: int) -> Path:
        """Return the file of the network after `epoch`."""
        return self.path / EPOCHS / f"{epoch:04d}.keras"

    @property
    def kept_epochs(self) -> dict[int, Path]:
        """Files of the networks of single epochs, by epoch, in order."""
        files = sorted((self.path / EPOCHS).glob("[0-9]*.keras"))
        return {int(file.stem): file for file in files if file.stem.isdecimal()}

    def choose_epochs(self, epochs: Iterable[int] | None = None) -> tuple[int, ...]:
        """Return the epochs whose networks were kept, in order.

        Args:
            epochs: Epochs of which those are returned; None for all.

        Raises:
            RunError: If none of them was kept.
        """
        kept = self.kept_epochs
        requested = sorted(set(kept if epochs is None else epochs))
        used = tuple(epoch for epoch in requested if epoch in kept)
        if not used:
            raise RunError(
                f"Run {self.path} kept no model of {'its' if epochs is None else 'these'} epochs",
                expected=f"some of {', '.join(map(str, requested))}" if requested else None,
                received=", ".join(map(str, kept)) or "none at all",
                hint="Train with `TrainingConfig.keep_epochs`, or name epochs that were kept",
            )
        return used

    @property
    def metrics_file(self) -> Path:
        """File of the metrics."""
        return self.path / METRICS

    @property
    def config(self) -> TrainingConfig:
        """The configuration."""
        file = self.path / CONFIG
        with damage_as_error(file, RunError):
            text = read_bytes(file, max_bytes=MAX_JSON_BYTES)
        return TrainingConfig.from_json(text, file)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names."""
        return tuple(read_lines(self.path / LABELS))

    @property
    def statistics(self) -> dict[str, np.ndarray]:
        """Statistics of the training images, by name."""
        file = self.path / STATISTICS
        with damage_as_error(file, RunError):
            return load_npz(file, max_bytes=MAX_STATISTICS_BYTES, kinds="biuf")

    @property
    def environment(self) -> dict[str, Any]:
        """Contents of environment.json."""
        file = self.path / ENVIRONMENT
        with damage_as_error(file, RunError):
            facts = JsonFields(read_json(file, nan=True), file)
            if "dataset" in facts:
                facts.fields("dataset").text("fingerprint", default="")
        return dict(facts.document)

    @property
    def progress(self) -> RunProgress:
        """The metrics of all epochs and of the network before training, in one reading."""
        config, initial = self.config, read_initial(self.path / INITIAL)
        begins_trained = config.restore_best and config.init_from is not None
        lacks_initial = False
        if initial is None and begins_trained:
            initial, is_known = initial_of_checkpoint(self.checkpoints)
            # A folder of stages has no checkpoint of its own: the first stage begins untrained.
            lacks_initial = not is_known and not (self.path / STAGES_FILE).is_file()
        return RunProgress(self.metrics, initial, config.restore_best, lacks_initial)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Metrics of each epoch; a last line that a crash truncated is left out.

        Losses that were not finite are None.
        """
        return read_metrics(self.metrics_file)

    @property
    def initial(self) -> dict[str, Any] | None:
        """Held-out metrics of the network before training, as epoch 0; None if not measured."""
        return self.progress.initial

    def write_initial(self, accuracy: float, loss: float | None) -> None:
        """Write the held-out metrics of the network before training.

        Raises:
            RunError: If the file cannot be written.
        """
        write_text(
            self.path / INITIAL, json_text({"val_accuracy": accuracy, "val_loss": loss}) + "\n"
        )

    @property
    def best(self) -> dict[str, Any] | None:
        """Metrics of the epoch with the lowest error on the held-out images; None before the first.

        Of equal errors, the lower loss decides. Epoch 0 is the network before training.
        """
        return self.progress.best

    @property
    def result(self) -> dict[str, Any] | None:
        """Metrics of the epoch whose network is the trained one; None before the first epoch.

        With `restore_best` this is the best one.
        """
        return self.progress.result

    def remove_partial_files(self) -> None:
        """Delete the files that a killed process did not finish; call it with the lock held.

        Raises:
            RunError: If they cannot be deleted.
        """
        remove_abandoned(self.path.parent)
        for folder in (self.path, self.checkpoints, self.path / EPOCHS):
            remove_abandoned(folder)
            for staging in folder.glob(f"{STAGING_PREFIX}*"):
                # Older versions staged files, not folders.
                if not staging.is_dir():
                    with write_errors(staging):
                        staging.unlink()

    def finished_model(self) -> Path:
        """Return the file of the trained network.

        Raises:
            RunError: If training is not finished.
        """
        if not self.model_file.is_file():
            raise RunError(
                f"The run {self.path} has no model yet",
                expected=f"a training that is finished after {self.config.epochs} epochs",
                received=f"{len(self.metrics)} epochs",
                hint=f"`cnnkit train --resume --output {self.path}` continues it",
            )
        return self.model_file


def names_imagenet(text: str | Path | None) -> bool:
    """Return whether a text means the ImageNet weights to download, and no file or run folder.

    Example:
        >>> names_imagenet("imagenet"), names_imagenet("./imagenet"), names_imagenet(None)
        (True, False, False)
    """
    if text is None or str(text) != IMAGENET:
        return False
    folder = Path(text)
    own = (folder / name for name in (CONFIG, MODEL, STAGES_FILE))
    return not folder.is_file() and not any(file.is_file() for file in own)

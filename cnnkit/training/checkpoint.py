"""Checkpoints: the state of a run after an epoch, in one file that is whole or absent."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnkit.errors import RunError
from cnnkit.runs import written_aside

KEPT = 2


def save(folder: Path, epoch: int, variables: Sequence) -> None:
    """Writes the variables after `epoch` and lets go of the older checkpoints.

    Args:
        folder: Where the checkpoints are.
        epoch: Epochs that are done.
        variables: Keras variables: weights, the optimizer's state, the state of dropout's seeds.
    """
    with written_aside(folder / f"epoch-{epoch:05d}.npz") as aside:
        np.savez(aside, *(np.asarray(variable.value) for variable in variables))
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()


def restore(folder: Path, variables: Sequence) -> int:
    """Fills the variables from the newest checkpoint that can be read.

    Returns:
        The number of epochs that are done, 0 where there is no checkpoint.

    Raises:
        RunError: If the checkpoint holds other variables.
    """
    for file in _newest_first(folder):
        try:
            with file.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
                arrays = [archive[name] for name in archive.files]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
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
        return int(file.stem.removeprefix("epoch-"))
    return 0


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.npz"), reverse=True)

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
        np.savez(aside, **{_key(i, v): np.asarray(v.value) for i, v in enumerate(variables)})
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
            with np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            # Torn by a crash of the machine: the one before it is whole.
            continue
        for i, variable in enumerate(variables):
            array = arrays.get(_key(i, variable))
            if array is None or array.shape != tuple(variable.shape):
                raise RunError(
                    f"The checkpoint {file} is of another network",
                    expected=f"{variable.path} of shape {tuple(variable.shape)}",
                    received="none" if array is None else f"shape {array.shape}",
                )
        for i, variable in enumerate(variables):
            variable.assign(arrays[_key(i, variable)])
        return int(file.stem.removeprefix("epoch-"))
    return 0


def _key(index: int, variable) -> str:
    # Paths of Keras variables need not be unique, and `/` makes folders in the archive.
    return f"{index:04d}.{variable.path.replace('/', '.')}"


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.npz"), reverse=True)

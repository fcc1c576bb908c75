"""Checkpoints: the state of a run after a step, in one file that is whole or absent."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnkit.errors import RunError
from cnnkit.training.state import State
from cnnkit.writing import written_aside

STATE = "state"


def save(folder: Path, number: int, state: State, variables: Sequence, *, kept: int = 2) -> Path:
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
    with written_aside(file) as aside, aside.open("wb") as handle:
        np.savez(handle, **arrays, **{STATE: np.frombuffer(text, np.uint8)})
    for old in newest_first(folder)[kept:]:
        old.unlink()
    return file


def restore(folder: Path, variables: Sequence) -> State:
    """Fills the variables from the newest checkpoint that can be read.

    Returns:
        Where the run stands; at its beginning where there is no checkpoint.

    Raises:
        RunError: If the checkpoint holds other variables.
    """
    for file in newest_first(folder):
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
        return State.from_dict(json.loads(text))
    return State()


def newest_first(folder: Path) -> list[Path]:
    """Returns the checkpoints of a folder, readable or not."""
    return sorted(folder.glob("step-*.npz"), reverse=True)

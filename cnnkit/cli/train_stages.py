"""Recipes of several trainings, one after the other in folders of one folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cnnkit._files import write_text
from cnnkit.config import TrainingConfig
from cnnkit.errors import RunError, UsageError
from cnnkit.recipes import TrainingStage
from cnnkit.run_folder import RunFolder

# What the parts of a run folder are; a run folder of one training has none.
STAGES_FILE = "parts.json"


def has_stages(output: Path) -> bool:
    """Tells whether `output` is the folder of several trainings."""
    return (output / STAGES_FILE).is_file()


def open_stage_runs(paths: Iterable[str | Path]) -> list[RunFolder]:
    """Opens run folders; the folder of several trainings stands for those that have begun.

    Raises:
        UsageError: A folder holds no run.
        RunError: As of `read_parts`.
    """
    runs: list[RunFolder] = []
    for path in map(Path, paths):
        parts = (
            [RunFolder(path / part.name) for part in read_stages(path)] if has_stages(path) else []
        )
        runs += [part for part in parts if part.exists()] or [RunFolder.open(path)]
    return runs


def write_stages(output: Path, parts: Sequence[TrainingStage]) -> None:
    """Writes down what is going to be trained, so that resuming needs nothing but the folder.

    Raises:
        UsageError: If the folder exists.
    """
    if output.exists():
        raise UsageError(
            f"The folder {output} exists",
            hint="--resume goes on with it; remove it to start afresh",
        )
    output.mkdir(parents=True)
    write_text(
        output / STAGES_FILE, json.dumps([dataclasses.asdict(part) for part in parts], indent=2)
    )


def read_stages(output: Path) -> list[TrainingStage]:
    """Reads what `write_stages` wrote.

    Raises:
        RunError: If it cannot be read.
    """
    file = output / STAGES_FILE
    try:
        return [
            TrainingStage(
                row["name"],
                TrainingConfig.from_json(json.dumps(row["config"]), file),
                row["follows"],
            )
            for row in json.loads(file.read_text())
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} tells no parts of a training", received=error) from error


def train_stages(
    output: Path,
    parts: Sequence[TrainingStage],
    train: Callable[[TrainingConfig, Path, bool], RunFolder],
    say: Callable[[str], None],
) -> list[RunFolder]:
    """Trains what is not finished yet, each part from the one before where it follows.

    Args:
        output: Folder of the parts' run folders.
        parts: What is trained.
        train: Trains a configuration into a folder; the last argument tells whether to resume.
        say: Tells which part begins.

    Returns:
        The finished runs.
    """
    runs: list[RunFolder] = []
    for number, part in enumerate(parts, start=1):
        run = RunFolder(output / part.name)
        say(f"part {number} of {len(parts)}: {part.name}")
        if not run.model_file.is_file():
            config = part.config
            if part.follows:
                config = dataclasses.replace(config, init_from=str(runs[-1].path))
            train(config, run.path, run.exists())
        runs.append(run)
    return runs

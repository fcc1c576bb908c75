"""The folder of a training of several stages, each in a run folder of its own.

OUTPUT/parts.json       the stages
OUTPUT/STAGE/           the run folder of a stage
OUTPUT/config.json ...  the files of the last stage, once it is finished
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cnnkit._file_tree import STAGES_FILE
from cnnkit._files import json_text, write_text
from cnnkit._staging import staged_file, staged_folder, write_errors
from cnnkit._untrusted.damage import damage_as_error
from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit.config import TrainingConfig
from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.recipes import TrainingStage
from cnnkit.run_folder import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    LABELS,
    MODEL,
    STATISTICS,
    RunFolder,
)

# Characters of the name of a folder.
MAX_NAME = 100


def has_stages(output: Path) -> bool:
    """Return True if a folder holds the stages of a training."""
    return (output / STAGES_FILE).is_file()


def open_stage_runs(paths: Iterable[str | Path]) -> list[RunFolder]:
    """Open run folders; a folder of several stages stands for those that have begun.

    Raises:
        UsageError: If a folder holds no run.
        RunError: If a list of stages cannot be read.
    """
    runs: list[RunFolder] = []
    for path in map(Path, paths):
        stages = read_stages(path) if has_stages(path) else []
        begun = (RunFolder(path / stage.name) for stage in stages)
        runs += [run for run in begun if run.exists()] or [RunFolder.open(path)]
    return runs


def write_stages(output: Path, stages: Sequence[TrainingStage], *, overwrite: bool = False) -> None:
    """Create a folder and write its stages, so that resuming needs nothing but the folder.

    Args:
        output: The folder.
        stages: The stages.
        overwrite: Whether a folder of stages may be deleted, once the new one is complete.

    Raises:
        UsageError: If the folder exists and may not be deleted.
        RunError: If it cannot be written, or another process trains in it.
    """
    check_stages_available(output, overwrite=overwrite)
    document = _document(stages)
    with ExitStack() as held, staged_folder(output, replace=True) as staging:
        for file in output.glob(f"*/{CONFIG}"):
            held.enter_context(RunFolder(file.parent).lock())
        write_text(staging / STAGES_FILE, document)


def replace_stages(output: Path, stages: Sequence[TrainingStage]) -> None:
    """Write other configurations of stages that have not begun.

    Raises:
        RunError: If the list cannot be written.
    """
    write_text(output / STAGES_FILE, _document(stages))


def _document(stages: Sequence[TrainingStage]) -> str:
    return json_text([dataclasses.asdict(stage) for stage in stages], indent=2)


def check_stages_available(output: Path, *, overwrite: bool) -> None:
    """Check that a folder of stages may be written here.

    Args:
        output: The folder.
        overwrite: Whether a folder of stages may be deleted.

    Raises:
        UsageError: If it cannot be created, or exists and may not be deleted.
    """
    if not output.exists():
        RunFolder(output).check_available(overwrite=overwrite)
    is_used = output.exists() and not (output.is_dir() and not any(output.iterdir()))
    if is_used and not has_stages(output):
        raise UsageError(f"{output} exists and is not a folder of stages", expected="a free path")
    if is_used and not overwrite:
        raise UsageError(
            f"The folder {output} exists",
            hint="`resume` continues it, `overwrite` starts again",
        )


def read_stages(output: Path) -> list[TrainingStage]:
    """Read the stages of a folder that `write_stages` created.

    Raises:
        RunError: If it cannot be read.
    """
    file = output / STAGES_FILE
    stages = []
    with damage_as_error(file, RunError, "is not a list of stages"):
        rows = read_json(file)
        if not isinstance(rows, list) or not rows:
            raise DataError(f"{file} is not a list of stages")
        for row in (JsonFields(one, file, "stage") for one in rows):
            name = row.text("name", max_length=MAX_NAME)
            # Its run is written into a folder of this name.
            if not name.isprintable() or name in ("", ".", "..") or set(name) & set("/\\"):
                raise row.wrong("name", "the name of a folder")
            config = TrainingConfig.from_json(json.dumps(row.fields("config").document), file)
            stages.append(TrainingStage(name, config, row.boolean("follows")))
    if stages[0].follows:
        raise RunError(f"{file} is not a list of stages", received="a first one that follows")
    return stages


def train_stages(
    output: Path,
    stages: Sequence[TrainingStage],
    train: Callable[[TrainingConfig, Path, bool], RunFolder],
    report: Callable[[str], None],
) -> list[RunFolder]:
    """Train the stages that are not finished yet, in order.

    Args:
        output: Folder of the stages' run folders.
        stages: The stages; one that `follows` begins with the weights of the stage before.
        train: A function that trains a configuration into a folder; its last argument is True to
            resume.
        report: A function that takes a line for each stage that begins.

    Returns:
        The finished runs. `output` itself becomes a run folder of the last network, if its stage
        follows the ones before, with the epochs of all of them.
    """
    runs: list[RunFolder] = []
    for number, stage in enumerate(stages, start=1):
        run = RunFolder(output / stage.name)
        report(f"part {number} of {len(stages)}: {stage.name}")
        if not run.model_file.is_file():
            config = stage.config
            if stage.follows:
                config = dataclasses.replace(config, init_from=str(runs[-1].path))
            train(config, run.path, run.exists())
        runs.append(run)
    if stages[-1].follows:
        _copy_result([run for run, _ in _last_chain(runs, stages)], output)
    return runs


def _last_chain(
    runs: Sequence[RunFolder], stages: Sequence[TrainingStage]
) -> list[tuple[RunFolder, TrainingStage]]:
    """Return the stages that follow each other up to the last one, with their runs."""
    pairs = list(zip(runs, stages, strict=True))
    first = max(place for place, (_, stage) in enumerate(pairs) if not stage.follows)
    return pairs[first:]


def _copy_result(runs: Sequence[RunFolder], output: Path) -> None:
    """Make the folder of the stages a run folder, of the network and the epochs of all of them."""
    last = runs[-1]
    lines: list[dict[str, Any]] = []
    for run in runs:
        before = (lines[-1]["epoch"], lines[-1]["step"]) if lines else (0, 0)
        for line in run.metrics:
            epoch, step = line["epoch"] + before[0], line["step"] + before[1]
            lines.append({**line, "epoch": epoch, "step": step})
    with write_errors(output):
        (output / CHECKPOINTS).mkdir(exist_ok=True)
    for name in (LABELS, ENVIRONMENT, STATISTICS, MODEL):
        with staged_file(output / name) as staging:
            shutil.copyfile(last.path / name, staging)
    result = RunFolder(output)
    if (initial := runs[0].initial) is not None:
        result.write_initial(initial["val_accuracy"], initial["val_loss"])
    write_text(result.metrics_file, "".join(json_text(line) + "\n" for line in lines))
    # It comes last, because it makes the folder a run.
    result.write_config(dataclasses.replace(last.config, epochs=max(1, len(lines))))

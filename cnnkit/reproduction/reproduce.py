"""Run a result of the papers again, seed by seed, and record it."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit._files import json_text
from cnnkit._staging import write_errors
from cnnkit._version import __version__
from cnnkit.errors import UsageError
from cnnkit.papers import PaperResult, find_paper_result
from cnnkit.reproduction.procedures import Inputs, check_reproducible, find_procedure, open_data
from cnnkit.reproduction.records import SEED, SUMMARY, append_record, open_records

if TYPE_CHECKING:
    from cnnkit.training import Callback

CONFIDENCE = 0.95
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Reproduction:
    """A result of a paper that was run again.

    Attributes:
        result: The result in the ledger, with the paper's value.
        value: The value, a mean if there are several seeds.
        seeds: The seeds; empty where nothing is random.
        values: Value of each seed, or the only value.
        interval: Lowest and highest value of Student's 95 % interval over the seeds; None of fewer
            than two seeds.
        minutes: Time of all seeds together.
        file: The file of the records.
        ran: Number of seeds that ran now; the others were in the file.
    """

    result: PaperResult
    value: float
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    minutes: float
    file: Path
    ran: int


def reproduce(
    id: str,
    output: str | Path,
    *,
    seeds: int = 3,
    data: str | None = None,
    weights: str | Path | None = None,
    batch_size: int = 64,
    command: str | None = None,
    progress: Callable[[int], object] = lambda count: None,
    callbacks: Sequence[Callback] = (),
) -> Reproduction:
    """Run the procedure of a result of the papers, and append what it gives to `output/ID.jsonl`.

    Each seed is written when it is done. Seeds that are in the file already, with the same data,
    weights and settings, are not run again.

    Args:
        id: Name of the result, as in `cnnkit.papers.paper_results`.
        output: Folder of the records; it is created if it does not exist.
        seeds: Number of seeds, from 0 on, of a result that depends on chance.
        data: Name of a dataset, as `cnnkit.data.load_dataset` takes it, for results that need one.
        weights: Weights file, for results that need one.
        batch_size: Number of images in a batch.
        command: Command for the record; None is that of this process.
        progress: Called with the number of images done since the last call.
        callbacks: Callbacks of a training, as `cnnkit.train` takes them.

    Raises:
        UsageError: If there is no such result, it has no procedure, or an input is missing or too
            many.
        DataError: If a file cannot be used.
        RunError: If the record cannot be written, or a training fails.
        Interrupted: If a signal stopped a training; its state is saved, and the same call goes on.

    Example:
        >>> import tempfile
        >>> from cnnkit.reproduction import reproduce
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = reproduce("vgg.text.stack.three.weights", folder)
        >>> found.value, found.result.value
        (27, 27.0)
    """
    from cnnkit.data.load import open_datasets_once

    result = find_paper_result(id)
    check_reproducible(result, data, weights)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise UsageError("`seeds` must be an integer of at least 1", received=seeds)
    file = Path(output) / f"{id}.jsonl"
    inputs = Inputs(
        data,
        None if weights is None else Path(weights),
        batch_size,
        progress,
        file.with_suffix(""),
        callbacks,
    )
    with open_datasets_once():
        return _run_missing(result, seeds, inputs, file, command)


def _run_missing(
    result: PaperResult, seeds: int, inputs: Inputs, file: Path, command: str | None
) -> Reproduction:
    """Run the seeds that are not in the file of the records, and append them there."""
    procedure = find_procedure(result)
    wanted: list[int | None] = [*range(seeds)] if procedure.is_random else [None]
    identity = _identify(result, inputs)
    setting = hashlib.sha256(json_text(identity).encode()).hexdigest()[:16]
    with write_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    done = {one.seed: one for one in open_records(file) if one.setting == setting}
    missing = [seed for seed in wanted if seed not in done]
    facts = {**_circumstances(command), "setting": setting, **identity}
    values = {seed: one.value for seed, one in done.items()}
    minutes = {seed: one.minutes for seed, one in done.items()}
    if missing:
        began = time.perf_counter()
        measured = procedure.measure(
            result.procedure, inputs, [seed for seed in missing if seed is not None]
        )
        for seed, value in zip(missing, measured, strict=True):
            values[seed], minutes[seed] = value, (time.perf_counter() - began) / 60
            began = time.perf_counter()
            record = {
                "id": result.id, "seed": seed, "value": value, "unit": result.unit,
                "minutes": round(minutes[seed], 3), **facts,
            }  # fmt: skip
            append_record(file, SEED, record)
    found = [values[seed] for seed in wanted]
    reproduction = Reproduction(
        result=result,
        value=found[0] if len(found) == 1 else statistics.fmean(found),
        seeds=tuple(seed for seed in wanted if seed is not None),
        values=tuple(found),
        interval=student_interval(found),
        minutes=sum(minutes[seed] for seed in wanted),
        file=file,
        ran=len(missing),
    )
    if missing:
        append_record(file, SUMMARY, {**summary(reproduction), **facts})
    return reproduction


def summary(reproduction: Reproduction) -> dict[str, Any]:
    """Return what was found, beside the values of the paper and of the ledger."""
    result = reproduction.result
    return {
        "id": result.id,
        "value": reproduction.value,
        "unit": result.unit,
        "seeds": list(reproduction.seeds),
        "values": list(reproduction.values),
        "interval": reproduction.interval,
        "minutes": round(reproduction.minutes, 3),
        "paper": result.value,
        "ledger": None if result.ours is None else result.ours.value,
    }


def student_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's 95 % interval of the mean of some values; None of fewer than two.

    Example:
        >>> [round(end, 2) for end in student_interval([1.0, 2.0, 3.0])]
        [-0.48, 4.48]
    """
    if len(values) < 2:
        return None
    from scipy import stats

    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    half = quantile * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    return mean - half, mean + half


def _identify(result: PaperResult, inputs: Inputs) -> dict[str, Any]:
    """Return everything but the seed that decides about the value."""
    identity: dict[str, Any] = {"procedure": dict(result.procedure)}
    if inputs.data is not None:
        dataset = open_data(inputs)
        identity |= {"data": inputs.data, "fingerprint": dataset.fingerprint}
        identity["classes"] = len(dataset.class_names)
    if inputs.weights is not None:
        from cnnkit.evaluation.result_store import sha256

        identity |= {"weights": inputs.weights.name, "sha256": sha256(inputs.weights)}
    return identity


def _circumstances(command: str | None) -> Mapping[str, Any]:
    """Return the command, the version, the commit if it is known, and the machine."""
    from cnnkit.training.environment import git_commit

    return {
        "command": shlex.join(sys.argv) if command is None else command,
        "cnnkit": __version__,
        "commit": git_commit(Path(__file__).parents[1]),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
    }


def _processor() -> str:
    """Return the name of the processor, or its architecture where the system does not say it."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())

"""Results in the run folder: `RUN/evaluations/PROTOCOL-SCALES-HASH.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnkit._files import make_folder, write_text
from cnnkit.errors import RunError, UsageError

FOLDER = "evaluations"


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def result_path(run: Path, request: Mapping[str, Any]) -> Path:
    """Returns where the results of a request belong.

    Args:
        run: The run folder.
        request: Everything that decides the figures, among it `protocol` and `scales`, a list for
            each network.
    """
    text = json.dumps(request, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    sides = "+".join(dict.fromkeys("_".join(map(str, sides)) for sides in request["scales"]))
    return run / FOLDER / f"{request['protocol']}-{sides}-{name}.json"


def progress_path(place: Path) -> Path:
    """Returns the file that holds how far an evaluation came."""
    return place.with_suffix(".partial.npz")


def save_results(document: Mapping[str, Any], place: Path) -> Path:
    """Writes results as JSON.

    A file of the same figures stays as it is; beside one of other figures the next free name is
    taken.

    Returns:
        The file that holds them.

    Raises:
        RunError: If it cannot be written.
    """
    make_folder(place.parent)
    plain = json.loads(json.dumps(document))
    number, file = 1, place
    while file.exists():
        if _counted(read_results(file)) == _counted(plain):
            return file
        number += 1
        file = place.with_stem(f"{place.stem}-{number}")
    write_text(file, json.dumps(plain, indent=1) + "\n")
    return file


def read_results(file: Path) -> dict[str, Any]:
    """Reads what `save_results` wrote.

    Raises:
        UsageError: If there is no such file.
        RunError: If it holds no results.
    """
    if not file.is_file():
        raise UsageError(f"No results {file}", expected="a file that `cnnkit evaluate` wrote")
    try:
        document: dict[str, Any] = json.loads(file.read_text())
        for name in ("confusion", "classes", "members", "examples", "mistakes", "top5_error"):
            document[name]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} holds no results of an evaluation", received=error) from error
    return document


def _counted(document: Mapping[str, Any]) -> list[Any]:
    """Returns the counted figures: probabilities depend on the batches in their last bits."""
    errors = ("top1_error", "top5_error")
    totals = [document, *document["members"]]
    return [document["confusion"], *([one[name] for name in errors] for one in totals)]


def newest_results(run: Path) -> Path:
    """Returns the file of a run's last evaluation.

    Raises:
        UsageError: If there is none.
    """
    files: Sequence[Path] = list((run / FOLDER).glob("*.json"))
    if not files:
        raise UsageError(
            f"The run {run} was not evaluated yet", hint=f"`cnnkit evaluate {run}` does that"
        )
    return max(files, key=lambda file: file.stat().st_mtime_ns)

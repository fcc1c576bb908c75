"""Store evaluation results in the run folder: `RUN/evaluations/PROTOCOL-SCALES-HASH.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnkit._files import json_text, make_folder, write_text
from cnnkit.errors import RunError, UsageError

FOLDER = "evaluations"


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def result_path(run: Path, request: Mapping[str, Any]) -> Path:
    """Return the path of the results of a request.

    Args:
        run: The run folder.
        request: Everything that determines the results, including `protocol` and `scales`, a list
            for each network. Its keys are part of the hash in the file name.

    Example:
        >>> request = {"protocol": "dense", "scales": [[224, 256]], "average": None}
        >>> result_path(Path("runs/demo"), request).name
        'dense-224_256-9e388778.json'
    """
    text = json.dumps(request, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    sides = "+".join(dict.fromkeys("_".join(map(str, sides)) for sides in request["scales"]))
    return run / FOLDER / f"{request['protocol']}-{sides}-{name}.json"


def progress_path(path: Path) -> Path:
    """Return the path of the saved progress of an evaluation.

    Args:
        path: Path of its results.
    """
    return path.with_suffix(".partial.npz")


def save_results(document: Mapping[str, Any], path: Path) -> Path:
    """Write results as JSON.

    If `path` exists with the same counts it is left unchanged; if it has other counts, the next
    free name with a number is used.

    Args:
        document: The results.
        path: Result of `result_path`.

    Returns:
        The file that contains the results.

    Raises:
        RunError: If the file cannot be written.
    """
    make_folder(path.parent)
    plain = json.loads(json_text(document))
    number, file = 1, path
    while file.exists():
        if _counts(read_results(file)) == _counts(plain):
            return file
        number += 1
        file = path.with_stem(f"{path.stem}-{number}")
    write_text(file, json_text(plain, indent=1) + "\n")
    return file


def read_results(file: Path) -> dict[str, Any]:
    """Read results that `save_results` wrote.

    Raises:
        UsageError: If the file does not exist.
        RunError: If it does not contain results.
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


def _counts(document: Mapping[str, Any]) -> list[Any]:
    """Return the counts; the last bits of probabilities depend on the batches."""
    errors = ("top1_error", "top5_error")
    totals = [document, *document["members"]]
    return [document["confusion"], *([one[name] for name in errors] for one in totals)]


def newest_results(run: Path) -> Path:
    """Return the file of the last evaluation of a run.

    Raises:
        UsageError: If the run has not been evaluated.
    """
    files: Sequence[Path] = list((run / FOLDER).glob("*.json"))
    if not files:
        raise UsageError(
            f"The run {run} has not been evaluated yet", hint=f"Run `cnnkit evaluate {run}` first"
        )
    return max(files, key=lambda file: file.stat().st_mtime_ns)

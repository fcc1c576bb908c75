"""Store evaluation results in the run folder: `RUN/evaluations/PROTOCOL-SCALES-HASH.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cnnkit._file_tree import EVALUATIONS
from cnnkit._files import json_text, make_folder, write_text
from cnnkit._untrusted.damage import damage_as_error
from cnnkit._untrusted.json_documents import MAX_INTEGER, JsonFields, read_json
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit.errors import DataError, RunError, UsageError

if TYPE_CHECKING:
    from io import BufferedReader


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a regular file in hexadecimal.

    Raises:
        DataError: If it cannot be read.
    """
    with open_regular_file(path) as file:
        return hashlib.file_digest(cast("BufferedReader", file), "sha256").hexdigest()


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
    return run / EVALUATIONS / f"{request['protocol']}-{sides}-{name}.json"


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
    with damage_as_error(file, RunError):
        fields = JsonFields(read_json(file, nan=True), file)
        if "confusion" not in fields:
            raise DataError(f"{file} holds no results of an evaluation")
        _check_results(fields)
    return dict(fields.document)


def _check_results(fields: JsonFields) -> None:
    """Check the types of what all results have, and that of what those of the command have too."""
    classes = len(fields.items("classes"))
    for row in fields.items("classes"):
        JsonFields(row, fields.origin, "classes").text("label")
    # Results without class names are not written by the command.
    last = classes - 1 if classes else MAX_INTEGER
    for row in fields.items("confusion"):
        label, predicted, _ = JsonFields({"row": row}, fields.origin, "confusion").integers("row")
        if max(label, predicted) > last:
            raise fields.wrong("confusion", f"counts of classes up to {last}")
    for one in (fields, *(JsonFields(row, fields.origin) for row in fields.items("members"))):
        for name in ("top1_error", "top5_error"):
            one.number(name, minimum=0, maximum=1)
    for name in ("examples", "mistakes"):
        for row in fields.items(name):
            _check_prediction(JsonFields(row, fields.origin, name))
    for name in ("dataset", "protocol", "fingerprint"):
        fields.text(name, default="")
    for name in ("images", "seed"):
        fields.integer(name, default=0)
    if "calibration" in fields:
        calibration = fields.fields("calibration")
        calibration.number("error", minimum=0, maximum=1)
        for row in calibration.items("bins"):
            _check_bin(JsonFields(row, fields.origin, "calibration.bins"))


def _check_prediction(row: JsonFields) -> None:
    row.integer("index")
    row.text("label")
    row.text("name", default="")
    if not row.items("top"):
        raise row.wrong("top", "at least one class")
    row.number("probability", minimum=0, maximum=1)
    for pair in row.items("top"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise row.wrong("top", "pairs of a class and its probability")
        named = JsonFields(dict(zip(("label", "probability"), pair, strict=True)), row.origin)
        named.text("label")
        named.number("probability", minimum=0, maximum=1)


def _check_bin(row: JsonFields) -> None:
    row.integer("images")
    for name in ("low", "high"):
        row.number(name, minimum=0, maximum=1)
    for name in ("confidence", "accuracy"):
        if row.document.get(name) is not None or row.document.get("images"):
            row.number(name, minimum=0, maximum=1)


def _counts(document: Mapping[str, Any]) -> list[Any]:
    """Return the counts; the last bits of probabilities depend on the batches."""
    errors = ("top1_error", "top5_error")
    totals = [document, *document["members"]]
    return [document["confusion"], *([one[name] for name in errors] for one in totals)]

"""Atomic writes, by which a file appears complete or not at all, and JSON texts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cnnkit.errors import RunError

# Beginning of the name of a file that is being written.
STAGING_PREFIX = ".aside-"


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` when the block succeeds.

    The file is flushed to disk before the rename, so that `path` is complete even after a crash.

    Args:
        path: The final path.

    Raises:
        RunError: If the file cannot be written, for example because the disk is full; an existing
            file at `path` is kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.txt"
        ...     with staged_file(path) as staging:
        ...         _ = staging.write_text("cat")
        ...     path.read_text()
        'cat'
    """
    staging = path.with_name(f"{STAGING_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield staging
        with staging.open("rb+") as file:
            os.fsync(file.fileno())
        staging.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        staging.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Create a folder if it does not exist.

    Raises:
        RunError: If it cannot be created.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file and flush it to disk.

    Raises:
        RunError: If the file cannot be written.
    """
    try:
        with path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> RunError:
    """Return the error for a file that could not be written."""
    return RunError(
        f"{path} could not be written",
        received=error.strerror or error,
        hint="Make room there; files that were written before are complete",
    )


def flush_folder(folder: Path) -> None:
    """Flush a folder to disk so that a rename in it survives a crash.

    Does nothing on systems where folders cannot be opened, such as Windows.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with staged_file(path) as staging:
        staging.write_text(text)


def json_text(document: object, *, indent: int | None = None) -> str:
    """Return a document as JSON; a number that is not finite becomes null, because JSON has none.

    Args:
        document: Mappings, lists, tuples, texts, numbers (NumPy's too), booleans and None.
        indent: Number of spaces of a level; None writes one line.

    Example:
        >>> json_text({"loss": float("nan"), "epoch": 1})
        '{"loss": null, "epoch": 1}'
    """
    return json.dumps(_without_infinities(document), indent=indent, allow_nan=False)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_infinities(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(one) for one in value]
    if type(value).__module__ == "numpy":  # Not imported: the file needs no NumPy otherwise.
        return _without_infinities(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value

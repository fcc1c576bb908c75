"""Writing files so that whoever finds one finds it whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnkit.errors import RunError

# How the name of a file begins that is being written.
STAGING_PREFIX = ".aside-"


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path`; what is written there takes its place when the block ends well.

    Flushed to disk before the rename, so that whoever finds `path` finds it whole.

    Raises:
        RunError: If it cannot be written, for example because the disk is full; what was at `path`
            stays as it was.
    """
    aside = path.with_name(f"{STAGING_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes a folder where it is missing.

    Raises:
        RunError: If it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def append_line(path: Path, line: str) -> None:
    """Adds a line to a text file and flushes it to disk.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        with path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> RunError:
    """Returns the error for a file that could not be written."""
    return RunError(
        f"{path} could not be written",
        received=error.strerror or error,
        hint="Make room there; what was written before is whole",
    )


def flush_folder(folder: Path) -> None:
    """Makes a rename in `folder` last; where folders cannot be opened, the system sees to it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with staged_file(path) as aside:
        aside.write_text(text)

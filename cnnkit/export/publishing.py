"""Version folders that appear whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tensorflow as tf

from cnnkit.errors import RunError, UsageError
from cnnkit.writing import flush_folder, not_written


def check_free(output: Path, version: int | None) -> None:
    """Makes sure that a version can appear in a model folder.

    Raises:
        UsageError: If the folder is a file, or the version is no number of one or exists.
    """
    if output.exists() and not output.is_dir():
        raise UsageError("The model folder is a file", expected="a folder", received=output)
    if version is not None and version < 1:
        raise UsageError("A version is a number", expected="1 or more", received=version)
    if version is not None and (output / str(version)).exists():
        raise _exists(output, version)


@contextmanager
def folder_aside(output: Path) -> Iterator[Path]:
    """Yields a new folder beside the versions of a model folder, which is gone after the block.

    Raises:
        RunError: If something in the block cannot be written, for example because the disk is full.
    """
    existed = output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        # Servers look only at folders whose name is a number. The name is a new one each time, so
        # that two exports do not write into each other's.
        aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=output))
    except OSError as error:
        raise not_written(output, error) from error
    try:
        yield aside
    except OSError as error:
        raise not_written(output, error) from error
    except tf.errors.OpError as error:
        # TensorFlow has a class of its own for each reason, and its text names its operation first.
        raise RunError(
            f"{output} could not be written",
            received=error.message.splitlines()[0].rpartition(";")[2],
            hint="Make room there; what was written before is whole",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if not existed:
            # Only where nothing has appeared in it.
            with suppress(OSError):
                output.rmdir()


def publish(saved: Path, output: Path, version: int | None) -> Path:
    """Flushes a finished folder to disk and renames it to a version, by default the next.

    Raises:
        UsageError: If the version has appeared meanwhile.
    """
    for file in saved.rglob("*"):
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        else:
            flush_folder(file)
    while True:
        number = version or _next(output)
        target = output / str(number)
        try:
            saved.rename(target)
        except OSError as error:
            if not target.exists():
                raise
            if version is not None:
                raise _exists(output, version) from error
            # Another export was first with this number: the next one is free.
            continue
        flush_folder(output)
        return target


def _next(output: Path) -> int:
    names = [path.name for path in output.iterdir()]
    return 1 + max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


def _exists(output: Path, version: int) -> UsageError:
    return UsageError(
        f"Version {version} exists in {output}",
        hint="Take another --version, or leave it out for the next one",
    )

"""The layout that model servers read: NAME/<integer>/saved_model.pb."""

from __future__ import annotations

import os
from pathlib import Path

from cnnkit.errors import UsageError

# What a file was when it was looked at: its name, its size, the time of its last change.
Fingerprint = tuple[tuple[str, int, int], ...]

_LARGEST_VERSION = 2**63 - 1


def version_folders(folder: Path) -> dict[int, Path]:
    """Returns the versions in a model's folder by their numbers, the newest first.

    Names that are no integers are ignored, as TensorFlow Serving does. Whether a version is whole
    is asked of `check_version`.

    Args:
        folder: The model's folder, NAME/.

    Raises:
        UsageError: There is no such folder, or it holds no version.

    Example:
        >>> version_folders(Path("models/digits"))  # doctest: +SKIP
        {1: PosixPath('models/digits/1')}
    """
    if not folder.is_dir():
        raise UsageError(
            "There is no such model folder",
            expected="a folder that holds versions, such as models/digits with models/digits/1",
            received=folder,
        )
    if (folder / "saved_model.pb").is_file():
        raise UsageError(
            "This folder is one version of a model",
            expected="the folder that holds its versions",
            received=folder,
            hint=f"Use {folder.parent}" if folder.name.isdigit() else "Move it into NAME/1",
        )
    versions = {
        int(entry.name): entry
        for entry in folder.iterdir()
        if entry.name.isascii()
        and entry.name.isdigit()
        and int(entry.name) <= _LARGEST_VERSION
        and entry.is_dir()
    }
    if not versions:
        raise UsageError(
            "This model folder holds no version",
            expected=f"a SavedModel in {folder}/1",
            received=folder,
            hint="Write one with `cnnkit export`",
        )
    return dict(sorted(versions.items(), reverse=True))


def check_version(folder: Path) -> None:
    """Raises where a version's folder is not whole, or its links lead out of the model's folder.

    Args:
        folder: NAME/<integer>/.

    Raises:
        UsageError: It must not or cannot be served.

    Example:
        >>> check_version(Path("models/digits/1"))  # doctest: +SKIP
    """
    if not (folder / "saved_model.pb").is_file():
        raise UsageError(
            "This version of a model is incomplete",
            expected=f"a file {folder / 'saved_model.pb'}",
            received=folder,
            hint="Export it again, or remove the folder",
        )
    model = folder.parent.resolve()
    for path in (folder, *folder.rglob("*")):
        if not path.resolve().is_relative_to(model):
            raise UsageError(
                "A link leads out of the model's folder",
                expected=f"files inside {model}",
                received=path,
                hint="Copy the files into it",
            )


def version_fingerprint(folder: Path) -> Fingerprint:
    """Returns what tells whether a version's files have changed since the last look.

    Args:
        folder: NAME/<integer>/.

    Example:
        >>> version_fingerprint(Path("/none"))
        ()
    """
    files = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            try:
                found = path.stat()
            except OSError:
                # It has gone since it was listed: another fingerprint next time.
                continue
            files.append((str(path.relative_to(folder)), found.st_size, found.st_mtime_ns))
    return tuple(sorted(files))

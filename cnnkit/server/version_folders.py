"""Version folders in the layout of model servers: NAME/<integer>/saved_model.pb.

The problem of an error here is sent to clients, so it holds names but no paths.
"""

from __future__ import annotations

import os
from pathlib import Path

from cnnkit._file_tree import SAVED_MODEL
from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit.errors import UsageError

# Path, size in bytes and modification time in ns of each file.
Fingerprint = tuple[tuple[str, int, int], ...]

_MAX_VERSION = 2**63 - 1


def version_folders(folder: Path) -> dict[int, Path]:
    """Returns the version folders in a model folder by their numbers, the newest first.

    Names that are not integers are ignored, as by TensorFlow Serving. The contents of a version are
    checked by `check_version`.

    Args:
        folder: The model folder, NAME/.

    Raises:
        UsageError: If there is no such folder, it cannot be read, or it holds no version.

    Example:
        >>> version_folders(Path("models/digits"))  # doctest: +SKIP
        {1: PosixPath('models/digits/1')}
    """
    with damage_as_error(f"Model folder {shorten(folder.name)!r}", UsageError, "cannot be read"):
        if not folder.is_dir():
            raise UsageError(
                f"Model folder {folder.name!r} does not exist",
                expected="a folder that holds versions, such as models/digits with models/digits/1",
                received=folder,
            )
        if (folder / SAVED_MODEL).is_file():
            raise UsageError(
                f"Folder {folder.name!r} is a version of a model",
                expected="the folder that holds its versions",
                received=folder,
                hint=f"Use {folder.parent}" if folder.name.isdigit() else "Move it into NAME/1",
            )
        versions = {
            int(entry.name): entry
            for entry in folder.iterdir()
            if entry.name.isascii()
            and entry.name.isdigit()
            and int(entry.name) <= _MAX_VERSION
            and entry.is_dir()
        }
    if not versions:
        raise UsageError(
            f"Model folder {folder.name!r} holds no version",
            expected=f"a SavedModel in {folder}/1",
            received=folder,
            hint="Write one with `cnnkit export`",
        )
    return dict(sorted(versions.items(), reverse=True))


def newest_version(folder: Path) -> Path:
    """Returns the newest version folder in a model folder, or the folder if it is a version itself.

    Args:
        folder: NAME/ or NAME/<integer>/.

    Raises:
        UsageError: As `version_folders`, if `folder` is not a version.

    Example:
        >>> newest_version(Path("models/digits"))  # doctest: +SKIP
        PosixPath('models/digits/2')
    """
    if (folder / SAVED_MODEL).is_file():
        return folder
    return next(iter(version_folders(folder).values()))


def check_version(folder: Path) -> None:
    """Raises an error if a version folder is incomplete, or a link leads out of the model folder.

    Args:
        folder: The version folder, NAME/<integer>/.

    Raises:
        UsageError: If the version cannot or must not be served.

    Example:
        >>> check_version(Path("models/digits/1"))  # doctest: +SKIP
    """
    if not (folder / SAVED_MODEL).is_file():
        raise UsageError(
            f"Version folder {folder.name!r} is incomplete",
            expected=f"a file {folder / 'saved_model.pb'}",
            received=folder,
            hint="Export it again, or remove the folder",
        )
    model = folder.parent.resolve()
    for path in (folder, *folder.rglob("*")):
        if not path.resolve().is_relative_to(model):
            raise UsageError(
                f"{path.name!r} is a link to a file outside of the model folder",
                expected=f"files inside {model}",
                received=path,
                hint="Copy the files into it",
            )


def version_fingerprint(folder: Path) -> Fingerprint:
    """Returns the paths, sizes and modification times of a version's files.

    Args:
        folder: The version folder, NAME/<integer>/.

    Example:
        >>> version_fingerprint(Path("/none"))
        ()
    """
    files = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                found = path.stat()
            except OSError:
                # Removed since it was listed; the next fingerprint differs.
                continue
            files.append((str(path.relative_to(folder)), found.st_size, found.st_mtime_ns))
    return tuple(sorted(files))

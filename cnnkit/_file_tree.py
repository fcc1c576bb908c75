"""Find all files below a folder, with the reason why a file is not meant to be an image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cnnkit.errors import UsageError

# Reasons, as they are printed behind a number of files.
HIDDEN = "hidden"
SYSTEM = "of the operating system"
BROKEN_LINK = "behind broken links"
CYCLIC_LINK = "behind cyclic links"
NOT_REGULAR = "special (pipe, socket or device)"
NO_ACCESS = "in folders without permission"
OTHER_TYPE = "of other types"

# Files and folders that operating systems, archives and network drives create, in lower case.
SYSTEM_NAMES = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)


# File of a trained network.
MODEL = "model.keras"
# The stages of a training of several; the run folder of a single one has no such file. The name is
# kept for folders that older versions wrote.
STAGES_FILE = "parts.json"
# Files of a folder of features, and of a saved classifier of features.
FEATURE_INDEX, CLASSIFIER_FILE = "index.json", "transfer.json"
# Folder of the results of evaluations in a run folder.
EVALUATIONS = "evaluations"
# File of the graph in a SavedModel.
SAVED_MODEL = "saved_model.pb"
# First bytes of a file that are looked at, and those that ASCII texts are made of.
_HEAD_BYTES = 256
_TEXT = bytes(range(32, 127)) + b"\t\n\r"
# Endings of the names of the files that can be decoded.
IMAGE_FILE_SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"})


class FoundFile(NamedTuple):
    """A file below a folder.

    Attributes:
        path: The path to open, with the folder. Bytes of the name that are not UTF-8 are
            surrogates, as in all of Python's functions of files.
        name: The path relative to the folder.
        size: Size in bytes; 0 if there is a reason.
        reason: Why the file is not meant to be an image; None if there is no reason.
        modified: Time of its last modification in nanoseconds; 0 if there is a reason.
    """

    path: str
    name: str
    size: int
    reason: str | None
    modified: int = 0


def find_files(folder: str | os.PathLike[str]) -> Iterator[FoundFile]:
    """Yield every file below a folder, in order of the names, folder by folder.

    Links are followed, except into a folder around the link. Files in hidden folders and in those
    of the operating system are yielded too, with that reason.

    Args:
        folder: An existing folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat.png", ".DS_Store"):
        ...         _ = Path(folder, name).write_bytes(b"")
        ...     [(file.name, file.reason) for file in find_files(folder)]
        [('.DS_Store', 'hidden'), ('cat.png', None)]
    """
    root = os.fspath(folder)
    yield from _walk(root, "", None, {_identity(root)})


def find_image_files(folder: str | os.PathLike[str]) -> tuple[list[Path], dict[str, int]]:
    """Return the image files below a folder in order, and the numbers of other files by reason.

    A file is an image by the ending of its name; it is not opened.

    Args:
        folder: An existing folder.

    Raises:
        UsageError: If there are no image files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat.png", "notes.txt"):
        ...         _ = Path(folder, name).write_bytes(b"")
        ...     images, left_out = find_image_files(folder)
        >>> [file.name for file in images], left_out
        (['cat.png'], {'of other types': 1})
    """
    found: list[Path] = []
    left_out: dict[str, int] = {}
    for file in find_files(folder):
        reason = file.reason
        if reason is None and Path(file.name).suffix.lower() not in IMAGE_FILE_SUFFIXES:
            reason = OTHER_TYPE
        if reason is None:
            found.append(Path(file.path))
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    if not found:
        raise UsageError(
            f"{folder} has no image files",
            expected=f"files {' '.join(sorted(IMAGE_FILE_SUFFIXES))}",
        )
    return sorted(found), left_out


def is_exported(path: Path) -> bool:
    """Return True for the folder of a SavedModel, or a folder NAME/ with versions NAME/1/, ..."""
    if (path / SAVED_MODEL).is_file():
        return True
    return path.is_dir() and any(
        file.parent.name.isdigit() for file in path.glob(f"*/{SAVED_MODEL}")
    )


def check_version_free(output: Path, version: int | None) -> None:
    """Raise an error if a version cannot be added to a model folder.

    Raises:
        UsageError: If `output` is a file, or `version` is below 1 or exists.
    """
    if output.exists() and not output.is_dir():
        raise UsageError("`output` must be a model folder, not a file", received=output)
    if version is not None and version < 1:
        raise UsageError("`version` must be 1 or more", received=version)
    if version is not None and (output / str(version)).exists():
        raise version_exists(output, version)


def version_exists(output: Path, version: int) -> UsageError:
    """Return the error for a version that a model folder holds already."""
    return UsageError(
        f"Version {version} exists in {output}",
        hint="Take another `version`, or leave it out for the next one",
    )


def is_ordinary(name: str) -> bool:
    """Return True if a file name is neither hidden nor one of the operating system."""
    return _reason_of_name(name) is None


def printable_name(name: str) -> str:
    r"""Return a file name that can be printed and stored; bytes that are not UTF-8 are escaped.

    Example:
        >>> printable_name("caf\udce9.jpg")
        'caf\\xe9.jpg'
    """
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def count_left_out(left_out: Mapping[str, int]) -> str:
    """Return in words how many files are left out for each reason, the most frequent first.

    Example:
        >>> count_left_out({"hidden": 1, "of other types": 2})
        '3 files left out: 2 of other types, 1 hidden'
    """
    total = sum(left_out.values())
    reasons = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons if count)
    return f"{total:,} file{'s' if total > 1 else ''} left out: {listed}"


def _walk(
    path: str, name: str, reason: str | None, around: set[tuple[int, int]]
) -> Iterator[FoundFile]:
    """Yield the files below `path`; all of them have the given reason, if there is one."""
    try:
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except PermissionError:
        yield FoundFile(path, name, 0, reason or NO_ACCESS)
        return
    for entry in entries:
        inner = f"{name}{os.sep}{entry.name}" if name else entry.name
        why = reason or _reason_of_name(entry.name)
        try:
            status = entry.stat()
            is_folder = entry.is_dir()
        except OSError:
            # The target is missing, or the link leads to itself.
            yield FoundFile(entry.path, inner, 0, why or BROKEN_LINK)
            continue
        if is_folder:
            identity = _identity(entry.path)
            if identity in around:
                yield FoundFile(entry.path, inner, 0, why or CYCLIC_LINK)
            else:
                yield from _walk(entry.path, inner, why, around | {identity})
        elif entry.is_file():
            size, modified = (0, 0) if why else (status.st_size, status.st_mtime_ns)
            yield FoundFile(entry.path, inner, size, why, modified)
        else:
            yield FoundFile(entry.path, inner, 0, why or NOT_REGULAR)


def _reason_of_name(name: str) -> str | None:
    if name.startswith("."):
        return HIDDEN
    return SYSTEM if name.lower() in SYSTEM_NAMES else None


def _identity(folder: str) -> tuple[int, int]:
    # Not the status of the entry, which has no numbers on Windows.
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def stages_hint(folder: Path) -> str | None:
    """Return what can be done with a folder of stages that is no run; None for other folders.

    It becomes a run when its last stage is finished, if that follows the others.
    """
    if not (folder / STAGES_FILE).is_file():
        return None
    finished = sorted(str(file.parent) for file in folder.glob(f"*/{MODEL}"))
    go_on = f"`cnnkit train --resume --output {folder}` continues its stages"
    return f"Name one of its stages, {', '.join(finished)}; or {go_on}" if finished else go_on


def newest_results(run: Path) -> Path:
    """Return the file of the last evaluation of a run.

    Raises:
        UsageError: If the run has not been evaluated.
    """
    files = list((run / EVALUATIONS).glob("*.json"))
    if not files:
        raise UsageError(
            f"The run {run} has not been evaluated yet", hint=f"Run `cnnkit evaluate {run}` first"
        )
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def why_no_weights(path: Path) -> str | None:
    """Return in a word why a file can hold no weights, `empty` or `text`; None if it may.

    All formats of weights are binary.

    Args:
        path: An existing file.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "empty"
    # The header of a .safetensors file is a text, behind its length in 8 bytes.
    return "text" if head[8:9] != b"{" and not head.translate(None, _TEXT) else None

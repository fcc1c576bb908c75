"""Files and folders that appear complete or not at all, locks, JSON texts, and lines of text.

Lines are read in the encoding that a file names.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import secrets
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cnnkit.errors import DataError, RunError

# Beginning of the name of a file or folder that is being written.
STAGING_PREFIX = ".aside-"
# Marks at the beginning of a file that name its encoding. That of UTF-32 begins with UTF-16's.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


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
    staging = _staging_name(path)
    try:
        # Exclusive, so that no link that was planted there is followed.
        os.close(os.open(staging, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield staging
        with staging.open("rb+") as file:
            os.fsync(file.fileno())
        staging.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, and rename it to `path` when the block succeeds.

    Args:
        path: The final path: nothing, or an empty folder.

    Raises:
        RunError: If the folder cannot be written; what was at `path` is kept.
    """
    staging = _staging_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
        flush_folder(staging)
        staging.rename(path)
        flush_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _staging_name(path: Path) -> Path:
    """Return a path in the same folder that no other process, on any machine, uses."""
    return path.with_name(f"{STAGING_PREFIX}{secrets.token_hex(8)}-{path.name}")


@contextmanager
def exclusive_lock(file: Path, owner: str) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends.

    Where the file system has no locks, a warning says so and nothing is held.

    Args:
        file: The file of the lock, which is created.
        owner: What the lock protects, for the error message.

    Raises:
        RunError: If another process holds the lock, or the file cannot be written.
    """
    try:
        handle = file.open("a+", encoding="utf-8")
    except OSError as error:
        raise write_error(file, error) from error
    with handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            raise RunError(
                f"{owner} is in use",
                received=handle.read(200).strip() or None,
                hint="Wait until it ends, or stop it",
            ) from error
        except (ImportError, OSError) as error:
            warnings.warn(
                f"{owner} could not be locked ({error}): do not start a second process on it",
                RuntimeWarning,
                stacklevel=3,
            )
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        handle.flush()
        yield


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
        with path.open("a", encoding="utf-8") as file:
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
    """Write a text file in UTF-8 atomically."""
    with staged_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


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


def join_lines(lines: Iterable[str]) -> str:
    r"""Return the content of a text file of `lines`, for example of class names.

    Raises:
        DataError: If a line contains a line break, so that it would be read as two.

    Example:
        >>> join_lines(["cat", "dog"])
        'cat\ndog\n'
    """
    lines = list(lines)
    for line in lines:
        if "\n" in line or "\r" in line:
            raise DataError(f"The name {line!r} contains a line break", expected="one line")
    return "".join(f"{line}\n" for line in lines)


def read_lines(path: Path) -> list[str]:
    r"""Read the lines of a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Lines end in `\n`, `\r\n` or `\r`. Other characters that `str.splitlines` takes for a line
    break can be part of a name.

    Raises:
        DataError: If the file cannot be read, or its encoding cannot be known.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.txt"
        ...     _ = path.write_bytes("\ufeffcat\r\ndog\r\n".encode("utf-16-le"))
        ...     read_lines(path)
        ['cat', 'dog']
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read", received=error.strerror or error) from error
    marked = (name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark))
    encoding = next(marked, "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} must be text in UTF-8, or in UTF-16 with a byte order mark",
            received=f"the byte 0x{data[error.start]:02x} in line {line}",
            hint=f"Save it in UTF-8, for example with `iconv -f LATIN1 -t UTF-8 {path}`",
        ) from error
    if "\0" in text:
        raise DataError(
            f"{path} must be text in UTF-8, or in UTF-16 with a byte order mark",
            received="zero bytes",
            hint="Save it in UTF-8",
        )
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines

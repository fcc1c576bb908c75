"""Files and folders that appear complete or not at all, and locks."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnnkit.errors import RunError, UsageError, warn

# Beginning of the name of a folder for files that are being written.
STAGING_PREFIX = ".aside-"
STAGING_LOCK = ".lock"
_STAGING_NAME = re.compile(re.escape(STAGING_PREFIX) + "[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{16}")
UNKNOWN_MACHINE = "0" * 8
# Bytes of the text in a lock that names its process.
MAX_HOLDER = 200
# Numbers of the system call renameat2 of Linux.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
# Flag of `os.open`: a link, which somebody else may have put there, is not followed.
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder inside `parent`, and delete it with its content after the block.

    Where an earlier process was killed, what it left in `parent` is deleted first.

    Args:
        parent: An existing folder.

    Raises:
        RunError: If the folder or a file in it cannot be written.
    """
    with write_errors(parent), _staging(parent) as folder:
        yield folder


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, and rename it to `path` when the block succeeds.

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
    with write_errors(path), _staging(path.parent) as folder:
        staging = folder / path.name
        yield staging
        with staging.open("rb+") as file:
            os.fsync(file.fileno())
        staging.replace(path)
        flush_folder(path.parent)


@contextmanager
def staged_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a new folder, and rename it to `path` when the block succeeds.

    Args:
        path: The final path: nothing, or an empty folder. A link to a folder stays one.
        replace: Whether a folder at `path` that is not empty is replaced and then deleted.

    Raises:
        RunError: If the folder cannot be written; what was at `path` is kept.
        UsageError: If `path` is a mount point.
    """
    path = path.resolve() if path.is_symlink() else path
    check_no_mount(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _staging(path.parent) as folder:
            staging = folder / path.name
            staging.mkdir()
            yield staging
            publish_folder(staging, path, replace=replace)


def publish_folder(staging: Path, path: Path, *, replace: bool) -> None:
    """Rename a folder that is complete.

    Args:
        staging: The folder.
        path: Its final path, on the same disk: nothing, or an empty folder.
        replace: Whether a folder at `path` that is not empty is exchanged with `staging`.
    """
    flush_folder(staging)
    if replace and path.exists():
        _exchange_folders(staging, path)
    else:
        staging.rename(path)
    flush_folder(path.parent)


def _exchange_folders(new: Path, path: Path) -> None:
    """Exchange two folders; where the system can, in one step, so that `path` always exists."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None).renameat2
        names = AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(path)
        if renameat2(*names, RENAME_EXCHANGE) == 0:
            return
    except (AttributeError, OSError, TypeError):
        pass  # Not Linux, or an older one.
    aside = new.with_name(f"{new.name}.old")
    path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        aside.rename(path)
        raise


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Yield a new folder that no other process uses, and delete it after the block.

    Its name tells the machine. The lock inside ends with the process, however it ends.
    """
    remove_abandoned(parent)
    while True:
        # The name cannot be guessed, and other users cannot write into the folder: no link that
        # was planted is followed.
        folder = parent / f"{STAGING_PREFIX}{_boot()}-{_machine()}-{secrets.token_hex(8)}"
        folder.mkdir(0o700)
        try:
            with _open_lock(folder) as lock:
                if lock is not None:
                    _try_lock(lock, wait=True)
                # False if another process took it for abandoned before it was locked.
                if folder.is_dir():
                    yield folder
                    return
        finally:
            # Errors of a disk that became read-only would hide those of the block.
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Delete the staging folders that killed processes left in a folder.

    Those of live processes are locked and stay. Those of other machines stay too, because locks do
    not work across machines on every disk.

    Args:
        folder: The folder. If it cannot be listed, nothing is deleted.
    """
    try:
        entries = [
            entry
            for entry in folder.iterdir()
            if _STAGING_NAME.fullmatch(entry.name) and not entry.is_symlink()
        ]
    except OSError:
        return
    for entry in entries:
        boot, machine, _ = entry.name.removeprefix(STAGING_PREFIX).split("-")
        if boot != _boot():
            # A process of this machine ended when it was started again.
            if machine == _machine() != UNKNOWN_MACHINE:
                shutil.rmtree(entry, ignore_errors=True)
            continue
        with suppress(OSError), _open_lock(entry) as lock:
            if lock is not None and _try_lock(lock):
                shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _open_lock(folder: Path) -> Iterator[int | None]:
    """Yield the open lock of a staging folder, None if the folder was deleted.

    A process that was killed before it had created the lock, or while it deleted the folder, left
    none: it is created.
    """
    try:
        lock = os.open(folder / STAGING_LOCK, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o600)
    except FileNotFoundError:
        yield None
        return
    try:
        yield lock
    finally:
        os.close(lock)


def _try_lock(file: int, *, wait: bool = False) -> bool:
    """Lock an open file; return False if another process holds it, or there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


@functools.cache
def _boot() -> str:
    """Return 8 hexadecimal digits that tell the running system, and all its containers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        boot = f"{socket.gethostname()} {uuid.getnode()}"
    return _short_digest(boot)


@functools.cache
def _machine() -> str:
    """Return 8 hexadecimal digits that tell the machine, also after it was started again."""
    identity = machine_identity()
    return _short_digest(identity) if identity else UNKNOWN_MACHINE


@functools.cache
def machine_identity() -> str:
    """Return a text that tells the machine, which only its users can read; empty if it has none."""
    try:
        identity = Path("/etc/machine-id").read_text().strip()
    except OSError:
        identity = ""
    return f"{socket.gethostname()} {identity}" if identity else ""


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


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
    with write_errors(file):
        handle = os.open(file, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o666)
    try:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (file.exists() and os.path.samestat(os.fstat(handle), file.stat())):
                # Its folder was replaced since it was opened.
                raise BlockingIOError
        except BlockingIOError as error:
            holder = os.read(handle, MAX_HOLDER).decode(errors="replace").strip()
            raise RunError(
                f"{owner} is in use",
                received=holder or None,
                hint="Wait until it ends, or stop it",
            ) from error
        except (ImportError, OSError) as error:
            warn(
                f"{owner} could not be locked ({error}): do not start a second process on it",
                RuntimeWarning,
                stacklevel=3,
            )
        with write_errors(file):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(handle)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise the errors of the system in the block as a `RunError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> RunError:
    """Return the error for a file that could not be written."""
    # NumPy's error about too little space has no number.
    if error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "Make room there; files that were written before are complete"
    elif error.errno in (errno.EBUSY, errno.EXDEV):
        hint = "A mount point cannot be replaced: use a folder in it"
    else:
        hint = "Write to another folder"
    return RunError(f"{path} could not be written", received=error.strerror or error, hint=hint)


def check_no_mount(path: Path) -> None:
    """Check that a folder can be replaced, which a mount point cannot.

    Raises:
        UsageError: If it is one, such as a volume of a container.
    """
    if path.is_mount():
        raise UsageError(
            f"{path} is a mount point, which cannot be replaced",
            hint=f"Use a folder in it, such as {path / 'run'}",
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


def flush_files(folder: Path) -> None:
    """Flush every file and folder below a folder to disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        else:
            flush_folder(file)

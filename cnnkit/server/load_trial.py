"""Try to load a version in a process of its own before the server loads it.

A version that does not fit into memory, or whose graph crashes TensorFlow, ends that process and
not the server with the version that it serves.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnkit.errors import RunError
from cnnkit.server.free_memory import MemoryShortageError, find_free_memory

_WORKER = "cnnkit.server.load_trial_worker"
# Where this package is: the worker may run in any folder.
_PACKAGES = str(Path(__file__).parents[2])
# Loading takes 2 s for a small network, and a minute for VGG-16 on a slow disk.
_TRIAL_SECONDS = 600.0
# Time that a process waits while another one loads a version of the same model.
_LOCK_SECONDS = 2 * _TRIAL_SECONDS
_CHECK_SECONDS = 0.1
# Besides what the trial took: requests go on, and memory in use is less compact than new memory.
_SPARE_BYTES = 64 << 20
_SPARE_SHARE = 8
_RETRY_HINT = "Free memory: it is tried again in a minute"


class LoadTrial:
    """Tries to load versions in a process of its own, and compares their memory with what is free.

    Processes that serve the same model folder load its versions one after another.

    Args:
        engine: Name of the engine that loads them: `"tensorflow"` or `"openvino"`.
        seconds: Time that a trial may take.

    Example:
        >>> trial = LoadTrial("tensorflow")
        >>> with trial.admit("digits", 2, Path("models/digits/2")):  # doctest: +SKIP
        ...     servable = load_and_warm_up("digits", 2, Path("models/digits/2"))
    """

    def __init__(self, engine: str, seconds: float = _TRIAL_SECONDS) -> None:
        self._engine = engine
        self._seconds = seconds

    @contextlib.contextmanager
    def admit(self, name: str, version: int, folder: Path) -> Iterator[None]:
        """Tries to load a version; the block then loads it in this process.

        Args:
            name: Name of the model.
            version: Number of the version.
            folder: The SavedModel.

        Raises:
            MemoryShortageError: If it takes more memory than is free.
            RunError: If it cannot be loaded, or its process crashes or does not end.
        """
        with _folder_lock(folder.parent):
            needed = self.measure(name, version, folder)
            free = find_free_memory()
            if free is not None and needed + needed // _SPARE_SHARE + _SPARE_BYTES > free:
                raise MemoryShortageError(
                    f"Version {version} of model {name!r} takes {needed >> 20} MiB of memory to "
                    f"load, and {free >> 20} MiB are free",
                    hint=_RETRY_HINT,
                )
            yield

    def measure(self, name: str, version: int, folder: Path) -> int:
        """Loads a version in a process of its own and returns the bytes of memory that it takes.

        Raises:
            MemoryShortageError: If memory is full, or the process was killed, as the system then
                does.
            RunError: If the version cannot be loaded, or the process crashes or does not end.
        """
        what = f"Version {version} of model {name!r}"
        command = [sys.executable, "-P", "-m", _WORKER, self._engine, name, str(version)]
        paths = filter(None, [_PACKAGES, os.environ.get("PYTHONPATH")])
        # The server may have reserved the memory of the GPU.
        environment = {"PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": "-1"}
        with (
            # A worker that is killed removes no files.
            tempfile.TemporaryDirectory(prefix="cnnkit-trial-") as temporary,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
            # The worker ends when its standard input does: together with this process.
            subprocess.Popen(
                [*command, str(folder)],
                env={**os.environ, **environment, "TMPDIR": temporary},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
            ) as process,
        ):
            try:
                process.wait(self._seconds)
            except subprocess.TimeoutExpired:
                raise RunError(
                    f"{what} was not loaded within {self._seconds:g} s",
                    hint="Export the model again",
                ) from None
            finally:
                process.kill()
            result = _last_object(_read(output))
            if "problem" in result:
                kind = MemoryShortageError if result["shortage"] else RunError
                raise kind(result["problem"], received=result["received"], hint=result["hint"])
            if "bytes" not in result:
                raise _crash(what, process.returncode, _read(errors))
            return int(result["bytes"])


def _read(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


def _last_object(output: str) -> dict[str, Any]:
    """Returns the last line of JSON; a graph may print other lines."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1])) if lines else {}


def _crash(what: str, code: int, errors: str) -> RunError:
    if code == -signal.SIGKILL or "std::bad_alloc" in errors:
        return MemoryShortageError(
            f"{what} cannot be loaded: memory is full",
            hint=_RETRY_HINT,
        )
    lines = errors.strip().splitlines()
    ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return RunError(
        f"{what} cannot be loaded: it crashes the process that loads it",
        received=f"{ended}: {lines[-1]}" if lines else ended,
        hint="Export the model again",
    )


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder if its file system has locks; waits for another process for long."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        end = time.monotonic() + _LOCK_SECONDS
        while time.monotonic() < end:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_CHECK_SECONDS)
            except OSError:
                break
        yield
    finally:
        os.close(handle)

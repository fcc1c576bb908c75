"""Program that loads a version and prints the memory that it takes; `LoadTrial` starts it.

    python -m cnnkit.server.load_trial_worker ENGINE NAME VERSION FOLDER

It prints a line of JSON: the bytes, or the parts of the error. It ends when its input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from cnnkit.errors import CnnkitError
from cnnkit.server.free_memory import MemoryShortageError, find_free_memory, read_status
from cnnkit.server.servable import SavedModelServable


def select_loader(engine: str) -> Callable[[str, int, Path], SavedModelServable]:
    """Returns the function that loads versions into an engine.

    Args:
        engine: `"tensorflow"` or `"openvino"`.

    Example:
        >>> select_loader("tensorflow").__name__
        'load_and_warm_up'
    """
    if engine == "openvino":
        from cnnkit.server.openvino import load_openvino

        return load_openvino
    from cnnkit.server.warmup import load_and_warm_up

    return load_and_warm_up


def run_trial(engine: str, name: str, version: int, folder: Path) -> dict[str, object]:
    """Loads a version and returns what the program prints.

    Args:
        engine: Name of the engine.
        name: Name of the model.
        version: Number of the version.
        folder: The SavedModel.
    """
    load = select_loader(engine)
    before = read_status("VmRSS") or 0
    try:
        loaded = load(name, version, folder)
    except CnnkitError as error:
        received = None if error.received is None else str(error.received)
        shortage = isinstance(error, MemoryShortageError)
        return {
            "problem": error.problem,
            "received": received,
            "hint": error.hint,
            "shortage": shortage,
        }
    del loaded
    return {"bytes": max(0, (read_status("VmHWM") or 0) - before)}


def confine() -> None:
    """Makes this process the one that fails, or is ended, when memory is full."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    free, used = find_free_memory(), read_status("VmData")
    if free is not None and used is not None:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = used + free
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    confine()
    print(json.dumps(run_trial(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
    sys.stdout.flush()
    # Without the end of Python, which takes seconds after TensorFlow.
    os._exit(0)

"""Runs tests of a copy of the project in forks of a process that has its libraries loaded.

    python -P tests/mutation/forks.py LIBRARY ...

Each line of standard input is a JSON object: `arguments` of pytest, `seconds` that they may take,
and `log`, the file of what they print. A line of the exit code follows, or of null after the time
has passed. A fork imports the modules of the project anew, so that it sees what was changed in
their files: of the project nothing is loaded here. TensorFlow is imported and not used, because the
threads of its operations would not be in the fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

# They take 6 seconds. pytest loads those of its plugins itself.
LIBRARIES = (
    "tensorflow", "keras", "numpy", "grpc", "h5py", "matplotlib.pyplot", "PIL.Image",
    "scipy.stats", "sklearn.svm", "pytest",
)  # fmt: skip
OURS = ("cnnkit", "tests")


class PytestForks:
    """The process for one copy of the project.

    Args:
        copy: Folder of the copy, whose own tester runs.
        libraries: Modules to load before the first fork.
    """

    def __init__(self, copy: Path, libraries: Sequence[str] = LIBRARIES):
        settings = {
            **os.environ,
            "PYTHONPATH": str(copy),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # As in tests/conftest.py, which is loaded after TensorFlow here.
            "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1"),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(copy / "tests" / "mutation" / "forks.py"), *libraries],
            cwd=copy,
            env=settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: Sequence[str], seconds: float) -> tuple[int | None, str]:
        """Returns the exit code of pytest and what it printed; None for one that did not end."""
        stdin: IO[str] = self._process.stdin
        stdout: IO[str] = self._process.stdout
        with tempfile.NamedTemporaryFile("r", errors="replace") as log:
            request = {"arguments": list(arguments), "seconds": seconds, "log": log.name}
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            answer = stdout.readline()
            if not answer:
                raise RuntimeError(f"The process of the tests ended: {self._process.wait()}")
            return json.loads(answer), log.read()

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def run_in_fork(arguments: Sequence[str], seconds: float, log: str) -> int | None:
    """Returns the exit code of pytest, or None after its time; nothing of it goes on."""
    child = os.fork()
    if not child:
        _run_pytest(arguments, log)
    end = time.monotonic() + seconds
    ended, status = 0, 0
    while not ended and time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0 if ended else 0.05)
    # What the tests have started as well.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if ended:
        return os.waitstatus_to_exitcode(status)
    os.waitpid(child, 0)
    return None


def _run_pytest(arguments: Sequence[str], log: str) -> None:
    """Runs pytest in a group of processes of its own, and ends this process."""
    code: Any = 1
    try:
        os.setsid()
        nothing, written = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
        for given, standard in ((nothing, 0), (written, 1), (written, 2)):
            os.dup2(given, standard)
        import pytest

        sys.argv = [str(Path(pytest.__file__).with_name("__main__.py")), *arguments]
        # As `python -m pytest` does.
        sys.path.insert(0, str(Path.cwd()))
        code = int(pytest.main(list(arguments)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Answers the lines of standard input."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    if loaded := [name for name in sys.modules if name.partition(".")[0] in OURS]:
        raise SystemExit(f"The forks would not see the files of {loaded}")
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(run_in_fork(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

"""Several processes that serve the same models on one port.

The kernel distributes connections over them. If a model crashes its process, the other processes go
on and a new one is started.
"""

from __future__ import annotations

import collections
import logging
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from cnnkit.errors import RunError

_LOG = logging.getLogger(__name__)

# More restarts within this time are not caused by single requests.
_MAX_RESTARTS = 10
_RESTART_SECONDS = 60.0


class WorkerPool:
    """Processes of one command, each of which prints a line when it is ready.

    A worker's standard input is closed when this process ends, for whatever reason.

    Args:
        command: The command of a worker.
        count: Number of workers.

    Example:
        >>> with WorkerPool(["cnnkit", "serve", "models/digits"], 2) as workers:  # doctest: +SKIP
        ...     workers.start(lambda: False)
    """

    def __init__(self, command: Sequence[str], count: int) -> None:
        self._command = list(command)
        self._count = count
        self._processes: list[subprocess.Popen[str]] = []
        self._restarts: collections.deque[float] = collections.deque(maxlen=_MAX_RESTARTS)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, should_stop: Callable[[], bool]) -> str | None:
        """Starts the workers and waits until all are ready.

        Args:
            should_stop: Returns True if a signal has asked to stop in the meantime.

        Returns:
            The line of the first worker; None after a request to stop.

        Raises:
            RunError: If a worker exits before it is ready.
        """
        # The first worker alone, so that errors of the models are printed once.
        self._processes = [self._start_worker()]
        line = self._ready_line(self._processes[0], should_stop)
        if line is not None:
            self._processes += [self._start_worker() for _ in range(self._count - 1)]
            for process in self._processes[1:]:
                line = line and (self._ready_line(process, should_stop) and line)
        return line

    def replace_exited(self) -> None:
        """Starts a new worker for each one that has exited.

        Raises:
            RunError: If too many workers exited within a minute.
        """
        for position, process in enumerate(self._processes):
            code = process.poll()
            if code is None:
                continue
            now = time.monotonic()
            if len(self._restarts) == _MAX_RESTARTS and now - self._restarts[0] < _RESTART_SECONDS:
                raise RunError(
                    f"{_MAX_RESTARTS + 1} workers exited within {_RESTART_SECONDS:g} s",
                    received=f"exit code {code}",
                    hint="Read their output above",
                )
            self._restarts.append(now)
            _LOG.warning("A worker exited with code %s; a new one starts", code)
            _close(process)
            self._processes[position] = self._start_worker()

    def stop(self, grace: float = 15.0) -> None:
        """Ends the workers.

        Args:
            grace: Seconds until they are killed.
        """
        for process in self._processes:
            process.terminate()
        end = time.monotonic() + grace
        for process in self._processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process)
        self._processes = []

    def _start_worker(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _ready_line(
        self, process: subprocess.Popen[str], should_stop: Callable[[], bool]
    ) -> str | None:
        if process.stdout is None:
            return None
        while not should_stop():
            if select.select([process.stdout], [], [], 0.1)[0]:
                line = process.stdout.readline()
                if line:
                    return line.rstrip("\n")
                raise RunError(
                    f"Worker {process.pid} exited before it was ready",
                    received=f"exit code {process.wait()}",
                    hint="Read its output above",
                )
        return None


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()

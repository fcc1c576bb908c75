"""Several processes that serve the same models on one port.

The kernel spreads connections over them. A model that ends its process takes one of them along;
the others go on, and a new one is started.
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

# So many new processes within so many seconds, and the fault is not one request's.
_MOST_RESTARTS = 10
_WITHIN = 60.0


class WorkerPool:
    """Processes of one command, each of which prints a line when it is ready.

    A worker's standard input ends when this process does, however that happens.

    Args:
        command: The command.
        count: How many.

    Example:
        >>> with WorkerPool(["cnnkit", "serve", "models/digits"], 2) as workers:  # doctest: +SKIP
        ...     workers.start(lambda: False)
    """

    def __init__(self, command: Sequence[str], count: int) -> None:
        self._command = list(command)
        self._count = count
        self._processes: list[subprocess.Popen[str]] = []
        self._restarts: collections.deque[float] = collections.deque(maxlen=_MOST_RESTARTS)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, stopped: Callable[[], bool]) -> str | None:
        """Starts the workers and waits until all are ready.

        Args:
            stopped: Whether the end was asked for meanwhile.

        Returns:
            The line of the first, None where the end was asked for.

        Raises:
            RunError: One ended instead.
        """
        # The first alone: what is wrong with the models is said once.
        self._processes = [self._process()]
        line = self._line(self._processes[0], stopped)
        if line is not None:
            self._processes += [self._process() for _ in range(self._count - 1)]
            for process in self._processes[1:]:
                line = line and (self._line(process, stopped) and line)
        return line

    def check(self) -> None:
        """Starts a new worker for each that has ended.

        Raises:
            RunError: They end again and again.
        """
        for position, process in enumerate(self._processes):
            code = process.poll()
            if code is None:
                continue
            now = time.monotonic()
            if len(self._restarts) == _MOST_RESTARTS and now - self._restarts[0] < _WITHIN:
                raise RunError(
                    "The workers end again and again",
                    received=f"exit code {code}, {_MOST_RESTARTS} within {_WITHIN:g} s",
                    hint="What they write above says why",
                )
            self._restarts.append(now)
            _LOG.warning("A worker ended with exit code %s; a new one starts", code)
            _close(process)
            self._processes[position] = self._process()

    def stop(self, grace: float = 15.0) -> None:
        """Ends the workers.

        Args:
            grace: Seconds they may take for that, before they are killed.
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

    def _process(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _line(self, process: subprocess.Popen[str], stopped: Callable[[], bool]) -> str | None:
        if process.stdout is None:
            return None
        while not stopped():
            if select.select([process.stdout], [], [], 0.1)[0]:
                line = process.stdout.readline()
                if line:
                    return line.rstrip("\n")
                raise RunError(
                    "A worker ended before it was ready",
                    received=f"exit code {process.wait()}",
                    hint="What it wrote above says why",
                )
        return None


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()

"""Several processes that serve the same models on one port.

The kernel distributes connections over them. If a model crashes or blocks its process, the other
processes go on and a new one is started.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from cnnkit.errors import RunError

_LOG = logging.getLogger(__name__)

# More restarts within this time are not caused by single requests.
_MAX_RESTARTS = 10
_RESTART_SECONDS = 60.0

# Line that a worker prints again and again while it can answer calls.
HEARTBEAT = "."
HEARTBEAT_SECONDS = 1.0
# A worker that has printed nothing for this time does not answer. The time is long enough for a
# machine that swaps, and short enough that clients with a timeout notice little.
_SILENCE_SECONDS = 15.0
# The time until a replaced worker has loaded its models.
_LOADING_SECONDS = 600.0
# A longer time between two checks means that this process was stopped too, as by Ctrl-Z.
_PAUSE_SECONDS = 5.0


class WorkerPool:
    """Processes of one command, each of which prints a line when it is ready, then heartbeats.

    A worker's standard input is closed when this process ends, for whatever reason.

    Args:
        command: The command of a worker.
        count: Number of workers.
        clock: Returns the time in seconds.
        on_end: Called with the number of a process that was lost.

    Example:
        >>> with WorkerPool(["cnnkit", "serve", "models/digits"], 2) as workers:  # doctest: +SKIP
        ...     workers.start(lambda: False)
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        clock: Callable[[], float] = time.monotonic,
        on_end: Callable[[int], None] = lambda process: None,
    ) -> None:
        self._on_end = on_end
        self._command = list(command)
        self._count = count
        self._clock = clock
        self._last_check = clock()
        self._workers: list[_Worker] = []
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
        self._workers = [self._start_worker()]
        line = _ready_line(self._workers[0], should_stop)
        if line is not None:
            self._workers += [self._start_worker() for _ in range(self._count - 1)]
            for worker in self._workers[1:]:
                line = line and (_ready_line(worker, should_stop) and line)
        for worker in self._workers:
            worker.last_output = self._clock()
        self._last_check = self._clock()
        return line

    def replace_lost(self) -> None:
        """Starts a new worker for each one that has exited or does not answer.

        Raises:
            RunError: If too many workers were lost within a minute.
        """
        now = self._clock()
        paused, self._last_check = now - self._last_check, now
        for position, worker in enumerate(self._workers):
            if worker.read_output() or paused > _PAUSE_SECONDS:
                worker.last_output = now
            reason = worker.exit_or_silence(now)
            if reason is None:
                continue
            if len(self._restarts) == _MAX_RESTARTS and now - self._restarts[0] < _RESTART_SECONDS:
                raise RunError(
                    f"{_MAX_RESTARTS + 1} workers were lost within {_RESTART_SECONDS:g} s",
                    received=reason,
                    hint="Read their output above",
                )
            self._restarts.append(now)
            _LOG.warning("A worker is lost: %s; a new one starts", reason)
            worker.kill()
            self._on_end(worker.process.pid)
            self._workers[position] = self._start_worker()

    def stop(self, grace: float = 15.0) -> None:
        """Ends the workers.

        Args:
            grace: Seconds until they are killed.
        """
        for worker in self._workers:
            worker.process.terminate()
        end = time.monotonic() + grace
        for worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, end - time.monotonic()))
            worker.kill()
        self._workers = []

    def _start_worker(self) -> _Worker:
        return _Worker(self._command, self._clock())


class _Worker:
    """A process, the time of its last output, and what it has printed."""

    def __init__(self, command: Sequence[str], now: float) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.last_output = now
        self.printed = b""

    def read_output(self, seconds: float = 0.0) -> bool:
        """Reads what has been printed, after a wait; returns False if there is nothing."""
        pipe = self.process.stdout
        if pipe is None or not select.select([pipe], [], [], seconds)[0]:
            return False
        more = os.read(pipe.fileno(), 65536)
        # The first line alone is of interest.
        self.printed = self.printed if b"\n" in self.printed else self.printed + more
        return bool(more)

    def exit_or_silence(self, now: float) -> str | None:
        """Returns why the worker cannot answer calls, or None if it can."""
        code = self.process.poll()
        if code is not None:
            return f"exit code {code}"
        allowed = _SILENCE_SECONDS if b"\n" in self.printed else _LOADING_SECONDS
        silent = now - self.last_output
        return f"no heartbeat for {silent:.0f} s" if silent > allowed else None

    def kill(self) -> None:
        """Ends the process, also one that is stopped, and closes its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _ready_line(worker: _Worker, should_stop: Callable[[], bool]) -> str | None:
    """Waits for the first line of a worker; returns None after a request to stop."""
    while not should_stop():
        if b"\n" in worker.printed:
            return worker.printed.partition(b"\n")[0].decode()
        # At its end, the pipe is ready and empty.
        if not worker.read_output(0.1) and worker.process.poll() is not None:
            # Ctrl-C reaches every process of a terminal, and the workers may end first.
            if should_stop() or worker.process.wait() == -signal.SIGINT:
                break
            raise RunError(
                f"Worker {worker.process.pid} exited before it was ready",
                received=f"exit code {worker.process.wait()}",
                hint="Read its output above",
            )
    return None

"""Notice that the threads that run graphs hang: a graph may wait for ever, and cannot be ended."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

# Beginning of the names of the threads that run graphs.
GRAPH_THREADS = "cnnkit-graph"


class Watchdog:
    """Measures how long graphs run, and for how long none has ended.

    Args:
        seconds: Time without the end of a graph after which those that run are taken to hang; 0 for
            never.
        clock: Returns the time in seconds.

    Example:
        >>> now = 0
        >>> watchdog = Watchdog(300, clock=lambda: now)
        >>> with watchdog.running():
        ...     now = 300
        ...     watchdog.problem()
        'No graph has ended for 300 s, while 1 run'
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        # The time at which each running graph began, oldest first, and that of the last end.
        self._running: dict[object, float] = {}
        self._last_end = clock()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Counts a graph as running during the block, which is that of its thread."""
        run = object()
        with self._lock:
            self._running[run] = self._clock()
        try:
            yield
        finally:
            with self._lock:
                del self._running[run]
                self._last_end = self._clock()

    def problem(self) -> str | None:
        """Returns that the graphs hang, as text; None if nothing is wrong.

        A server without requests has no problem, and neither has one of which only some threads
        hang while others finish graphs.
        """
        with self._lock:
            if not (self._seconds and self._running):
                return None
            oldest = next(iter(self._running.values()))
            silent = self._clock() - max(oldest, self._last_end)
            count = len(self._running)
        if silent < self._seconds:
            return None
        return f"No graph has ended for {silent:.0f} s, while {count} run"

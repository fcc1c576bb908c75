"""Defer SIGINT and SIGTERM, so that training stops between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cnnkit.errors import RunError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A shell reports 128 + N for a process that was ended by signal N.
SHELL_SIGNAL_BASE = 128


class Interrupted(RunError):
    """Training was stopped by a signal; the state is saved.

    Args:
        number: The signal.
        position: Epoch and step at which training stopped.
        run: Path of the run folder.

    Attributes:
        exit_code: 130 after SIGINT, 143 after SIGTERM, as a shell would report.
    """

    def __init__(self, number: int, position: str, run: Path) -> None:
        self.exit_code = SHELL_SIGNAL_BASE + number
        self._number, self._position = number, position
        super().__init__(
            f"Stopped by {signal.Signals(number).name} {position}; everything up to there is kept",
            hint=f"Go on with: cnnkit train --resume --output {run}",
        )

    def with_folder(self, folder: Path) -> Interrupted:
        """Return the same error for another folder, for example one that contains several runs."""
        return Interrupted(self._number, self._position, folder)


class StopFlag:
    """Hold the signal that requested a stop.

    Attributes:
        signal: Number of the signal, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None


@contextmanager
def defer_signals() -> Iterator[StopFlag]:
    """Store the first SIGINT or SIGTERM in a flag; a second one has its usual effect.

    Outside the main thread, where Python allows no signal handlers, signals are not deferred.

    Example:
        >>> import signal
        >>> with defer_signals() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        >>> stop.signal == signal.SIGTERM
        True
    """
    stop = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def remember(number: int, _frame: FrameType | None) -> None:
        stop.signal = number
        restore()

    for number in SIGNALS:
        signal.signal(number, remember)
    try:
        yield stop
    finally:
        restore()

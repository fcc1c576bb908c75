"""Stopping between two steps when a signal asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnkit.errors import RunError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What a shell reports of a process that a signal ended.
SIGNALLED = 128


class Interrupted(RunError):
    """Training was stopped by a signal; its state is kept.

    Attributes:
        exit_code: 130 after SIGINT, 143 after SIGTERM, as a shell would report.
    """

    def __init__(self, number: int, where: str, run: Path) -> None:
        self.exit_code = SIGNALLED + number
        self._number, self._where = number, where
        super().__init__(
            f"Stopped by {signal.Signals(number).name} {where}; everything up to there is kept",
            hint=f"Go on with: cnnkit train --resume --output {run}",
        )

    def toward(self, folder: Path) -> Interrupted:
        """Returns the same for the folder that the work of several runs goes on from."""
        return Interrupted(self._number, self._where, folder)


class StopFlag:
    """Remembers the signal that asked to stop.

    Attributes:
        signal: Its number, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None


@contextmanager
def defer_signals() -> Iterator[StopFlag]:
    """Remembers SIGINT and SIGTERM instead of dying of them; a second one works as ever.

    Python lets only the main thread do this; elsewhere nothing changes.
    """
    stop = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def remember(number, _frame) -> None:
        stop.signal = number
        give_back()

    for number in SIGNALS:
        signal.signal(number, remember)
    try:
        yield stop
    finally:
        give_back()

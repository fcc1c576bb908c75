"""Defer SIGINT and SIGTERM, so that a program stops at a point of its choice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Hold the signal that requested a stop.

    Attributes:
        signal: Number of the signal, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def is_set(self) -> bool:
        """Return True if a signal requested a stop."""
        return self.signal is not None


@contextmanager
def defer_signals(*, restore_after_first: bool = True) -> Iterator[StopFlag]:
    """Store SIGINT and SIGTERM in a flag instead of ending the process.

    Outside the main thread, where Python allows no signal handlers, signals are not deferred.

    Args:
        restore_after_first: Whether a second signal has its usual effect. Otherwise it is stored
            too.

    Yields:
        The flag, which holds the last signal.

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
        if restore_after_first:
            restore()

    for number in SIGNALS:
        signal.signal(number, remember)
    try:
        yield stop
    finally:
        restore()


@contextmanager
def default_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process at once in a block, and restore their handlers.

    Python's handlers do not run while a foreign function holds its global lock, and TensorFlow
    replaces that of SIGTERM when it joins the workers of a training. Outside the main thread
    nothing is changed.

    Example:
        >>> with default_signals():
        ...     signal.getsignal(signal.SIGINT)
        <Handlers.SIG_DFL: 0>
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible(seconds: float = 2.0) -> Iterator[None]:
    """Raise `KeyboardInterrupt` at SIGINT and SIGTERM in a block, and restore their handlers.

    If the block has not ended after some time, because a foreign function does not return, the
    system ends the process. Outside the main thread nothing is changed.

    Args:
        seconds: Time that the block has to end after the signal.

    Example:
        >>> import signal
        >>> try:
        ...     with interruptible():
        ...         signal.raise_signal(signal.SIGTERM)
        ... except KeyboardInterrupt:
        ...     print("interrupted")
        interrupted
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, seconds)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        if interrupted and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)

"""A thread that calls a function at an interval."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_LOG = logging.getLogger(__name__)


class Poller:
    """Calls a function at an interval, in a thread; an error does not end the thread.

    Args:
        poll: The function.
        seconds: Seconds between two calls.

    Example:
        >>> poller = Poller(repository.refresh, 1.0)  # doctest: +SKIP
        >>> poller.start()  # doctest: +SKIP
    """

    def __init__(self, poll: Callable[[], None], seconds: float) -> None:
        self._poll = poll
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cnnkit-poller", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread; does not wait for a running call."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self._poll()
            except Exception:
                # The next poll may succeed.
                _LOG.exception("The model folders could not be polled")

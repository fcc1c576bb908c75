"""A thread that looks at the model folders again and again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_LOG = logging.getLogger(__name__)


class Watcher:
    """Calls a function every so many seconds, whatever happens in it.

    Args:
        look: The function.
        seconds: Between two calls.

    Example:
        >>> watcher = Watcher(repository.refresh, 1.0)  # doctest: +SKIP
        >>> watcher.start()  # doctest: +SKIP
    """

    def __init__(self, look: Callable[[], None], seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cnnkit-watcher", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more; a look that is going on is not waited for."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self._look()
            except Exception:
                # The next look may find everything well again.
                _LOG.exception("The model folders could not be looked at")

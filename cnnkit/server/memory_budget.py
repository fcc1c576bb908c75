"""The memory that all open requests of a server may take together."""

from __future__ import annotations

import threading
from types import TracebackType

import grpc

from cnnkit.server.status_error import StatusError

# Clients repeat a call with this text.
MEMORY_FULL = "Server memory for requests is full"


class MemoryBudget:
    """Counts the bytes of all open requests and refuses those above a limit.

    Args:
        limit: Largest number of bytes.

    Example:
        >>> budget = MemoryBudget(100)
        >>> with budget.open() as account:
        ...     account.add(60)
        ...     budget.used
        60
        >>> budget.used
        0
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that open requests take."""
        return self._used

    def open(self) -> MemoryAccount:
        """Returns the account of a request."""
        return MemoryAccount(self)

    def change(self, size: int) -> None:
        """Adds or removes bytes.

        Raises:
            StatusError: RESOURCE_EXHAUSTED if they do not fit; the budget does not change then.
        """
        with self._lock:
            if size > 0 and self._used + size > self.limit:
                raise memory_full()
            self._used += size


class MemoryAccount:
    """The bytes of one request, which its budget gets back at the end of the block.

    Args:
        budget: The budget of all requests.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0

    def add(self, size: int) -> None:
        """Takes bytes from the budget.

        Raises:
            StatusError: RESOURCE_EXHAUSTED if they do not fit.
        """
        self._budget.change(size)
        self._size += size

    def __enter__(self) -> MemoryAccount:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._budget.change(-self._size)


def memory_full() -> StatusError:
    """Returns the error for a request that does not fit into the memory."""
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, MEMORY_FULL)

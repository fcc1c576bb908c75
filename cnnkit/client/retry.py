"""The retry policy: which failed calls are repeated, how often, and after which delay."""

from __future__ import annotations

from cnnkit.client.errors import ConnectionLost, ServerError
from cnnkit.client.flow import Deadline
from cnnkit.errors import UsageError


class RetryPolicy:
    """Decides whether a failed call is repeated.

    A call is repeated if the server has not started to process it: it was not reachable, or it
    refused the call because it was overloaded. After a lost connection the call may have been
    processed, so only an idempotent one is repeated.

    Args:
        max_attempts: Maximum number of attempts of a call, at least 1.

    Raises:
        UsageError: `max_attempts` is below 1.

    Example:
        >>> from cnnkit.client.errors import ServerBusy
        >>> from cnnkit.client.flow import Deadline
        >>> from cnnkit.client.retry import RetryPolicy
        >>> error = ServerBusy("The queue is full", code="UNAVAILABLE", details="")
        >>> 0.05 <= RetryPolicy(2).delay(error, 1, Deadline(10), idempotent=False) <= 0.1
        True
        >>> RetryPolicy(2).delay(error, 2, Deadline(10), idempotent=False) is None
        True
    """

    def __init__(self, max_attempts: int) -> None:
        if max_attempts < 1:
            raise UsageError(
                "`max_attempts` must be positive", expected=">= 1", received=max_attempts
            )
        self.max_attempts = max_attempts

    def delay(
        self, error: ServerError, attempt: int, deadline: Deadline, *, idempotent: bool
    ) -> float | None:
        """Return the seconds to wait before the next attempt, or None if there is none.

        Args:
            error: The failure of the last attempt.
            attempt: Number of that attempt, from 1.
            deadline: End of the caller's time; no attempt is made after it.
            idempotent: Whether the call may be processed twice.
        """
        retryable = error.retryable or (idempotent and isinstance(error, ConnectionLost))
        if not retryable or attempt >= self.max_attempts:
            return None
        delay = backoff_delay(attempt)
        return delay if delay < deadline.left() else None


def backoff_delay(attempt: int) -> float:
    """Return the seconds to wait after a failed attempt: exponential backoff with jitter.

    The delay doubles with each attempt, from 0.1 s up to 2 s. It is then multiplied by a random
    factor in 0.5..1, so that clients that failed together do not retry together.

    Args:
        attempt: Number of the failed attempt, from 1.

    Example:
        >>> 0.05 <= backoff_delay(1) <= 0.1 and 1 <= backoff_delay(30) <= 2
        True
    """
    # Imported here to keep it out of the import time of the client.
    import random

    return min(0.1 * 2.0 ** (attempt - 1), 2.0) * random.uniform(0.5, 1.0)

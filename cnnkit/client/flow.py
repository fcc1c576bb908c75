"""What a client does, told step by step to whoever can do it: plans that know no threads, no loop.

A plan is a generator. It yields steps (make this call, wait, do these plans together) and receives
what came of each; its return value is the result. `Client` does the steps with blocking calls,
`AsyncClient` with an event loop. So what is decided, and in which order, is written once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from cnnkit.client.channel import check_timeout

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class UnaryCall:
    """Make one call; the answer's bytes come back, or a `RpcFailure` is raised.

    Attributes:
        method: The full path of the method.
        request: The request's bytes.
        timeout: Seconds.
    """

    method: str
    request: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Do nothing for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Gather:
    """Do plans at the same time; the list of their results comes back, in their order.

    The first that fails ends the others, and what it raised is raised. A plan that has not begun is
    not even taken out of `plans`.

    Attributes:
        plans: What to do. None of them does others together.
        at_once: How many at the same time, at most.
    """

    plans: Iterable[Flow[Any]]
    at_once: int


Step = UnaryCall | Sleep | Gather
Flow = Generator[Step, Any, ResultT]


class RpcFailure(Exception):
    """What gRPC says about a call without an answer.

    Args:
        code: The name of the status code.
        details: The text that came with it.
    """

    def __init__(self, code: str, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details


class Deadline:
    """The end of the time that a caller gives to everything that an answer takes.

    Args:
        seconds: From now on.

    Raises:
        UsageError: They are not a positive, finite number.

    Example:
        >>> 9 < Deadline(10).left() <= 10
        True
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = check_timeout(seconds)
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Returns the seconds that are left, 0 where none are."""
        return max(self._end - time.monotonic(), 0.0)


def backoff_delay(attempt: int) -> float:
    """Returns the seconds to wait after a failed attempt, of which the first is number 1.

    They double each time, and are shortened by chance, so that clients which failed together do not
    come back together.

    Example:
        >>> 0.05 <= backoff_delay(1) <= 0.1 and 1 <= backoff_delay(30) <= 2
        True
    """
    # Only a client in trouble pays for this import.
    import random

    return min(0.1 * 2.0 ** (attempt - 1), 2.0) * random.uniform(0.5, 1.0)

"""Sans-I/O call flows: the logic of each call, independent of threads and event loops.

A flow is a generator. It yields steps (`UnaryCall`, `Sleep`, `Gather`), receives the result of each
step, and returns the result of the call. `Client` runs the steps with blocking calls, `AsyncClient`
in an event loop, so both share the order of steps and every decision.
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
    """Step: make one RPC. Its result is the response's bytes; a failure raises `RpcFailure`.

    Attributes:
        method: Full path of the method, such as "/tensorflow.serving.PredictionService/Predict".
        request: Serialized request.
        timeout: Seconds.
    """

    method: str
    request: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Step: wait.

    Attributes:
        seconds: How long.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Gather:
    """Step: run flows concurrently. Its result is the list of their results, in order.

    The first failure cancels the other flows and is raised; an `InvalidRequest` in the flow that
    yielded the step, so that it can send less. Flows are taken from `flows` only when
    one can start, so a failure leaves the rest unmade.

    Attributes:
        flows: The flows. None of them may yield a `Gather`.
        limit: Number of flows that run at the same time, at most.
    """

    flows: Iterable[Flow[Any]]
    limit: int


Step = UnaryCall | Sleep | Gather
Flow = Generator[Step, Any, ResultT]


class RpcFailure(Exception):
    """An RPC that ended with a gRPC status other than OK.

    Args:
        code: Name of the status code, such as "UNAVAILABLE".
        details: Text of the status.
        request_id: Id that the server has given the call; None if it told none.
    """

    def __init__(self, code: str, details: str, request_id: str | None = None) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details
        self.request_id = request_id


class Deadline:
    """The time at which a call and all its attempts must have ended.

    Args:
        seconds: Time from now.

    Raises:
        UsageError: `seconds` is not a positive, finite number.

    Example:
        >>> 9 < Deadline(10).left() <= 10
        True
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = check_timeout(seconds)
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the remaining seconds, at least 0."""
        return max(self._end - time.monotonic(), 0.0)

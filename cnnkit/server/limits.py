"""Limits of the embedded server, and the admission of requests within them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc

from cnnkit.errors import UsageError
from cnnkit.server.status_error import StatusError


@dataclass(frozen=True)
class ServerLimits:
    """Limits of the embedded server.

    Attributes:
        threads: Graphs that run at the same time; by default one for each core.
        max_concurrent_requests: Requests that run or wait for a thread. Further ones are refused
            with RESOURCE_EXHAUSTED, as by TensorFlow Serving.
        max_open_requests: Requests that run, wait, or are still being received. Further ones are
            refused with RESOURCE_EXHAUSTED.
        max_request_bytes: Largest message, and largest tensor in memory.
        receive_timeout_seconds: Time to receive a request.
        max_request_rows: Largest first dimension of a request.
        batch_timeout_seconds: Time that a request waits for others to run with; 0 merges none.
        max_batch_rows: Largest number of rows of a batch of merged requests.
        max_enqueued_batches: Batches of merged requests that wait; the requests of further ones
            are refused with UNAVAILABLE.

    Raises:
        UsageError: If a limit is negative, or 0 where only `batch_timeout_seconds` may be 0.

    Example:
        >>> from cnnkit.server import ServerLimits
        >>> ServerLimits(threads=2).max_request_rows
        256
    """

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    max_concurrent_requests: int = 128
    max_open_requests: int = 2000
    max_request_bytes: int = 256 * 2**20
    receive_timeout_seconds: float = 60.0
    max_request_rows: int = 256
    batch_timeout_seconds: float = 0.0
    max_batch_rows: int = 32
    max_enqueued_batches: int = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "batch_timeout_seconds" else 1
            if not least <= value < 2**31:
                raise UsageError(
                    f"`{name}` must be in {least}..{2**31 - 1}",
                    expected=f">= {least}",
                    received=value,
                )


class ConcurrencyLimiter:
    """Counts the current requests and refuses further ones above the limits.

    Args:
        limits: The limits.

    Example:
        >>> async with ConcurrencyLimiter(ServerLimits()).admit(messages) as raw:  # doctest: +SKIP
        ...     handle(raw)
    """

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._open = 0
        self._admitted = 0

    @contextlib.asynccontextmanager
    async def admit(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yields the bytes of a request, which counts until the end of the block.

        A request above the limits is refused before its bytes are read.

        Args:
            messages: The messages of the call, normally one.

        Raises:
            StatusError: If there are too many requests, or the bytes do not arrive in time.
        """
        if self._open >= self._limits.max_open_requests:
            raise _exhausted()
        self._check_admitted()
        self._open += 1
        try:
            raw = await self._receive(messages)
            self._check_admitted()
            self._admitted += 1
            try:
                yield raw
            finally:
                self._admitted -= 1
        finally:
            self._open -= 1

    async def _receive(self, messages: AsyncIterator[bytes]) -> bytes:
        seconds = self._limits.receive_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await anext(messages)
        except TimeoutError:
            raise StatusError(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"The request did not arrive within {seconds:g} seconds",
            ) from None
        except StopAsyncIteration:
            # Also for a message above max_request_bytes: gRPC has then sent its own status.
            raise StatusError(grpc.StatusCode.INTERNAL, "The request has no message") from None

    def _check_admitted(self) -> None:
        if self._admitted >= self._limits.max_concurrent_requests:
            raise _exhausted()


def _exhausted() -> StatusError:
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

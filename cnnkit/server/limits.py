"""Which requests are let in, and reading their bytes."""

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
    """How much the server takes on at once.

    Attributes:
        threads: Graphs that run at the same time; by default one for each core.
        calls: Requests that are taken at once, waiting ones included. More are refused with
            RESOURCE_EXHAUSTED, as TensorFlow Serving does.
        open_calls: Requests whose bytes are still coming, those taken included. A slow client
            costs little; so many of them are borne.
        request_bytes: The largest message, and the largest tensor in memory.
        arrival_seconds: How long a request may take to arrive.
        batch_rows: The largest first dimension of a request.
        window_seconds: How long a request waits for others to run with; 0 joins none.
        joined_rows: The most rows of a batch of joined requests.
        queued_batches: Batches of joined requests that wait; the requests of more are refused
            with UNAVAILABLE.

    Raises:
        UsageError: One of them is negative, or is 0 and must not be.
    """

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    calls: int = 128
    open_calls: int = 2000
    request_bytes: int = 256 * 2**20
    arrival_seconds: float = 60.0
    batch_rows: int = 256
    window_seconds: float = 0.0
    joined_rows: int = 32
    queued_batches: int = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "window_seconds" else 1
            if not least <= value < 2**31:
                raise UsageError(
                    f"The server's limit {name} cannot be", expected=f">= {least}", received=value
                )


class ConcurrencyLimiter:
    """Counts the requests that are there, and refuses those that are too many.

    Args:
        limits: What is too many.

    Example:
        >>> async with ConcurrencyLimiter(Limits()).request(messages) as raw:  # doctest: +SKIP
        ...     handle(raw)
    """

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._open = 0
        self._taken = 0

    @contextlib.asynccontextmanager
    async def request(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Gives the bytes of a request; it counts until the end of the block.

        Nothing is read of a request that is one too many.

        Args:
            messages: The messages of the call: there should be one.

        Raises:
            Refusal: There are too many, or its bytes do not come.
        """
        if self._open >= self._limits.open_calls:
            raise _exhausted()
        self._check_taken()
        self._open += 1
        try:
            raw = await self._read(messages)
            self._check_taken()
            self._taken += 1
            try:
                yield raw
            finally:
                self._taken -= 1
        finally:
            self._open -= 1

    async def _read(self, messages: AsyncIterator[bytes]) -> bytes:
        seconds = self._limits.arrival_seconds
        try:
            async with asyncio.timeout(seconds):
                return await anext(messages)
        except TimeoutError:
            raise StatusError(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"The request did not arrive within {seconds:g} seconds",
            ) from None
        except StopAsyncIteration:
            # Also a message over the limit: gRPC has then answered already.
            raise StatusError(grpc.StatusCode.INTERNAL, "The request has no message") from None

    def _check_taken(self) -> None:
        if self._taken >= self._limits.calls:
            raise _exhausted()


def _exhausted() -> StatusError:
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

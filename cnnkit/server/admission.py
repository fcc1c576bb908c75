"""Which requests are let in, and reading their bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from cnnkit.server.limits import Limits
from cnnkit.server.refusal import Refusal


class Admission:
    """Counts the requests that are there, and refuses those that are too many.

    Args:
        limits: What is too many.

    Example:
        >>> async with Admission(Limits()).request(messages) as raw:  # doctest: +SKIP
        ...     handle(raw)
    """

    def __init__(self, limits: Limits) -> None:
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
            raise Refusal(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"The request did not arrive within {seconds:g} seconds",
            ) from None
        except StopAsyncIteration:
            # Also a message over the limit: gRPC has then answered already.
            raise Refusal(grpc.StatusCode.INTERNAL, "The request has no message") from None

    def _check_taken(self) -> None:
        if self._taken >= self._limits.calls:
            raise _exhausted()


def _exhausted() -> Refusal:
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

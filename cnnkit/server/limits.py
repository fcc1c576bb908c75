"""Limits of the embedded server, and the admission of requests within them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from cnnkit.errors import UsageError
from cnnkit.server.incoming import IncomingBytes, ReadMessage
from cnnkit.server.memory_budget import MemoryAccount, MemoryBudget
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
        max_request_bytes: Largest message, also unpacked, and largest tensor in memory.
        max_memory_bytes: Memory that all open requests may take together: their messages, also
            those still being received, their tensors and responses. Further ones are refused with
            RESOURCE_EXHAUSTED. Graphs take memory of their own.
        receive_timeout_seconds: Time to receive a request.
        max_request_rows: Largest first dimension of a request.
        max_request_pixels: Largest number of pixels of all image files of a request. A pixel of a
            PNG file counts 6 times, for the work of decoding it, one of a JPEG file once for each
            scan; see the guide of the server.
        batch_timeout_seconds: Time that a request waits for others to run with; 0 merges none.
        max_batch_rows: Largest number of rows of a batch of merged requests.
        max_enqueued_batches: Batches of merged requests that wait; the requests of further ones
            are refused with UNAVAILABLE.
        max_models: Largest number of models that a reload request names.
        stuck_seconds: Time without the end of a graph after which a server whose graphs run says
            that it is not live, so that it is restarted; 0 for never.

    Raises:
        UsageError: If a limit is negative, or 0 where it may not be.

    Example:
        >>> from cnnkit.server import ServerLimits
        >>> ServerLimits(threads=2).max_request_rows
        256
    """

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    max_concurrent_requests: int = 128
    max_open_requests: int = 2000
    max_request_bytes: int = 256 * 2**20
    max_memory_bytes: int = 2**30
    receive_timeout_seconds: float = 60.0
    max_request_rows: int = 256
    max_request_pixels: int = 1_000_000_000
    batch_timeout_seconds: float = 0.0
    max_batch_rows: int = 32
    max_enqueued_batches: int = 16
    max_models: int = 32
    stuck_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name in ("batch_timeout_seconds", "stuck_seconds") else 1
            # gRPC stores the size of a message in 32 bits.
            most = 2**63 if name in ("max_memory_bytes", "max_request_pixels") else 2**31
            if not least <= value < most:
                raise UsageError(
                    f"`{name}` must be in {least}..{most - 1}",
                    expected=f">= {least}",
                    received=value,
                )
        if self.max_memory_bytes < 2 * self.max_request_bytes:
            raise UsageError(
                "`max_memory_bytes` must hold the message and the tensor of the largest request",
                expected=f">= {2 * self.max_request_bytes}, twice `max_request_bytes`",
                received=self.max_memory_bytes,
            )


class ReceivedRequest:
    """The message of a request, and the memory that the request takes.

    Args:
        raw: The message, which may be packed.
        memory: The account of the request.

    Attributes:
        memory: The account of the request.
        size: Bytes of the message.
        called: Model, version and signature that the request calls, as far as they are found.
        model_name: Name of the model that the client asks for, which may be any text.
    """

    def __init__(self, raw: bytes, memory: MemoryAccount) -> None:
        self.memory = memory
        self.size = len(raw)
        self.called = ("", "", "")
        self.model_name = ""
        self._raw = raw

    def take(self) -> bytes:
        """Returns the message, and keeps it no longer."""
        raw, self._raw = self._raw, b""
        return raw


class ConcurrencyLimiter:
    """Counts the current requests, refuses further ones above the limits, and ends them at a stop.

    Args:
        limits: The limits.

    Example:
        >>> limiter = ConcurrencyLimiter(ServerLimits())
        >>> async with limiter.admit(context.peer(), context.read) as request:  # doctest: +SKIP
        ...     handle(request.take())
    """

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._budget = MemoryBudget(limits.max_memory_bytes)
        self._incoming = IncomingBytes(self._budget)
        self._open: set[asyncio.Task[Any]] = set()
        self._admitted = 0
        self._stopping = False
        self._ended = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ended(self) -> bool:
        """Whether `end` has canceled the requests."""
        return self._ended

    @property
    def stopping(self) -> bool:
        """Whether further requests are refused, because the server is stopping."""
        return self._stopping

    def refuse_new(self) -> None:
        """Refuses all further requests, because the server is stopping."""
        self._stopping = True

    async def wait_until_idle(self, seconds: float) -> None:
        """Waits until no request is open, for at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)

    def end(self) -> None:
        """Cancels the open requests."""
        self._ended = True
        for task in self._open:
            task.cancel()

    @contextlib.asynccontextmanager
    async def admit(self, peer: str, read: ReadMessage) -> AsyncIterator[ReceivedRequest]:
        """Yields a request, which counts until the end of the block.

        A request above the limits is refused before its bytes are read.

        Args:
            peer: The client, as gRPC names it.
            read: Receives its message: `ServicerContext.read`.

        Raises:
            StatusError: If there are too many requests, they take too much memory, the bytes do not
                arrive in time, or the server is stopping.
        """
        if self._stopping:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server is stopping")
        if len(self._open) >= self._limits.max_open_requests:
            raise _exhausted()
        self._check_admitted()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for mypy: a call of gRPC runs in a task
        self._open.add(task)
        self._idle.clear()
        try:
            with self._budget.open() as memory:
                request = ReceivedRequest(await self._receive(peer, read), memory)
                memory.add(request.size)
                self._check_admitted()
                self._admitted += 1
                try:
                    yield request
                finally:
                    self._admitted -= 1
        finally:
            self._open.discard(task)
            if not self._open:
                self._idle.set()

    def open_memory(self) -> MemoryAccount:
        """Returns the memory account of a call that is not admitted."""
        return self._budget.open()

    async def receive(self, peer: str, read: ReadMessage) -> bytes:
        """Returns the message of a call that is answered at once, also at the limits.

        Args:
            peer: The client, as gRPC names it.
            read: Receives its message.

        Raises:
            StatusError: If the messages in reception take too much memory, or the bytes do not
                arrive in time.
        """
        return await self._receive(peer, read)

    async def _receive(self, peer: str, read: ReadMessage) -> bytes:
        seconds = self._limits.receive_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._incoming.receive(peer, read)
        except TimeoutError:
            raise StatusError(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"The request did not arrive within {seconds:g} seconds",
                http_status=408,
            ) from None

    def _check_admitted(self) -> None:
        if self._admitted >= self._limits.max_concurrent_requests:
            raise _exhausted()


def _exhausted() -> StatusError:
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

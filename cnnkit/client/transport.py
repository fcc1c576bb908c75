"""Send single calls over a gRPC channel, blocking or in an event loop."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import grpc

from cnnkit.client.channel import ChannelOptions
from cnnkit.client.errors import ServerUnavailable
from cnnkit.client.flow import RpcFailure, UnaryCall
from cnnkit.errors import CnnkitError, UsageError
from cnnkit.wire import methods


class Transport:
    """The state that both transports share.

    Args:
        options: The server.

    Raises:
        UsageError: A certificate file cannot be read.
    """

    def __init__(self, options: ChannelOptions) -> None:
        self._options = options
        # Read now, so that a missing file is an error here and not at the first call.
        self._credentials = options.credentials()
        self._closed = False
        self._process = os.getpid()

    @property
    def _is_forked(self) -> bool:
        """True after a fork, in the new process: both would write to one connection."""
        return os.getpid() != self._process

    def _check_open(self) -> None:
        if self._is_forked:
            raise UsageError(
                f"This client of {self._options.address} must be used in the process that created"
                " it",
                hint="Create a client in each process, after the fork",
            )
        if self._closed:
            raise UsageError(
                f"This client of {self._options.address} is closed", hint="Create another client"
            )

    def _translate(self, error: BaseException) -> RpcFailure | CnnkitError:
        """Return the exception to raise for an exception of gRPC."""
        if self._closed:
            problem = f"The client of {self._options.address} was closed during the call"
            return ServerUnavailable(problem, code="CANCELLED", details="")
        if isinstance(error, grpc.RpcError):
            return RpcFailure(error.code().name, error.details() or "", _request_id(error))
        return UsageError("gRPC rejects the arguments of `call`", received=str(error))


def _request_id(error: grpc.RpcError) -> str | None:
    """Return the id of a failed call, if the server has sent one that is fit to be printed."""
    metadata: Any = error.trailing_metadata() or ()
    given = dict(metadata).get(methods.REQUEST_ID)
    is_id = isinstance(given, str) and methods.WELL_FORMED_ID.fullmatch(given)
    return given if is_id else None


class SyncTransport(Transport):
    """Blocking calls. May be shared by threads.

    Args:
        options: The server.
    """

    def __init__(self, options: ChannelOptions) -> None:
        super().__init__(options)
        self._channel = options.open(self._credentials)
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def call(self, call: UnaryCall) -> bytes:
        """Make a call and return the response.

        Raises:
            RpcFailure: The status of the call is not OK.
        """
        method, headers = self.method(call.method), self._options.headers()
        try:
            return method(call.request, timeout=call.timeout, metadata=headers)
        except (grpc.RpcError, ValueError) as error:
            raise self._translate(error) from error

    def start(self, call: UnaryCall) -> grpc.Future[bytes]:
        """Start a call and return its future."""
        method, headers = self.method(call.method), self._options.headers()
        try:
            return method.future(call.request, timeout=call.timeout, metadata=headers)
        except ValueError as error:
            raise self._translate(error) from error

    def finish(self, future: grpc.Future[bytes]) -> bytes:
        """Return the response of a future that is done.

        Raises:
            RpcFailure: The status of the call is not OK.
        """
        try:
            return future.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            raise self._translate(error) from error

    def method(self, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        """Return the callable of a method."""
        self._check_open()
        if path not in self._methods:
            # If two threads create one at the same time, either is fine.
            self._methods[path] = self._channel.unary_unary(path)
        return self._methods[path]

    def close(self) -> None:
        """Close the channel and cancel calls in flight."""
        self._closed = True
        if not self._is_forked:
            self._channel.close()


class AsyncTransport(Transport):
    """Calls in the event loop that runs during the first call.

    Args:
        options: The server.
    """

    _channel: grpc.aio.Channel | None = None

    async def call(self, call: UnaryCall) -> bytes:
        """Make a call and return the response.

        Raises:
            RpcFailure: The status of the call is not OK.
        """
        self._check_open()
        if self._channel is None:
            # A channel of grpc.aio must be created while its event loop runs.
            self._channel = self._options.open_async(self._credentials)
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method, headers = self._channel.unary_unary(call.method), self._options.headers()
        try:
            return await method(call.request, timeout=call.timeout, metadata=headers)
        except (grpc.RpcError, ValueError, TypeError, grpc.aio.UsageError) as error:
            raise self._translate(error) from error
        except asyncio.CancelledError as error:
            # Closing the channel cancels its calls too, not only canceling the task.
            if self._closed:
                raise self._translate(error) from None
            raise

    async def close(self) -> None:
        """Close the channel and cancel calls in flight."""
        self._closed = True
        if self._channel is not None and not self._is_forked:
            await self._channel.close()

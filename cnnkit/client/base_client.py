"""What the two kinds of client share: how they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import grpc

from cnnkit.client.calls import Calls
from cnnkit.client.channel import TLS, ChannelOptions
from cnnkit.client.errors import ServerUnavailable
from cnnkit.client.flow import RpcFailure
from cnnkit.errors import CnnkitError, UsageError


class BaseClient:
    """A client of one model server; `Client` waits for its answers, `AsyncClient` is awaited.

    Args:
        address: "HOST:PORT" of the server's gRPC interface, or a name gRPC resolves itself, such
            as "dns:///models:8500".
        timeout: Seconds that a call may take unless it says otherwise: everything that it takes,
            further attempts and the parts of a large batch included.
        tls: True for an encrypted connection, a `TLS` for certificates of your own.
        token: Sent with every call as `authorization: Bearer TOKEN`; a function is asked for it
            each time. Without TLS only to this machine.
        metadata: More headers of every call.
        compression: "gzip" or "deflate" of requests; pixels and photos seldom get smaller.
        keepalive: Seconds between pings while an answer is awaited; none by default. Servers end
            connections that ping more often than they like, by default every 300 s.
        round_robin: Whether calls take turns between all addresses that the name resolves to.
        attempts: How often a call is made at most. It is made again, after a pause that grows,
            only where the server has not begun to work on it: nobody there, queue or threads full.
            A Predict call whose connection broke is never made again: its input may have killed
            the server, and would kill the next one.
        concurrency: Requests in flight at most, where a batch is sent in parts.

    Raises:
        UsageError: The address has no port, the timeout is not positive, or another argument
            cannot be.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 10.0,
        tls: TLS | bool = False,
        token: str | Callable[[], str] | None = None,
        metadata: Mapping[str, str] | None = None,
        compression: str | None = None,
        keepalive: float | None = None,
        round_robin: bool = False,
        attempts: int = 4,
        concurrency: int = 4,
    ) -> None:
        self._endpoint = ChannelOptions(
            address,
            timeout=timeout,
            tls=tls,
            token=token,
            metadata=metadata,
            compression=compression,
            keepalive=keepalive,
            round_robin=round_robin,
        )
        self._plans = Calls(self._endpoint, attempts, concurrency)
        # Files that cannot be read are told now, not at the first call.
        self._credentials = self._endpoint.credentials()
        self._closed = False
        self._open()

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._endpoint.address

    def _open(self) -> None:
        """Connects, where that is not for later."""

    def _failed(self, error: Exception) -> RpcFailure | CnnkitError:
        """Returns what is to be raised for an error of gRPC's."""
        if self._closed:
            return ServerUnavailable(
                "This client was closed during the call", code="CANCELLED", details=""
            )
        if isinstance(error, grpc.RpcError):
            return RpcFailure(error.code().name, error.details() or "")
        return UsageError("gRPC refuses this call", received=str(error))

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("This client is closed", hint="Open another one")

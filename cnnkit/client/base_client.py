"""The common base class of `Client` and `AsyncClient`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cnnkit._deprecation import renamed_argument
from cnnkit.client.calls import Calls
from cnnkit.client.channel import DEFAULT_MAX_RESPONSE_BYTES, TLS, ChannelOptions


class BaseClient:
    """Base class of `Client`, whose methods block, and `AsyncClient`, whose methods are awaited.

    Args:
        address: "HOST:PORT" of the server's gRPC interface, or a URI that gRPC resolves, such as
            "dns:///models:8500".
        timeout: Default timeout of a call in seconds. It includes all attempts and all parts of a
            large batch.
        tls: True for a TLS connection, or a `TLS` with certificate files.
        token: Sent with every call as `authorization: Bearer TOKEN`; or a function that returns it
            and is called before each call. Without TLS, only for servers on this machine.
        metadata: Additional headers of every call. Those whose name or value says that they are
            secrets (`authorization`, `cookie`, `x-api-key`) are restricted as `token` is.
        compression: "gzip" or "deflate" of requests. Pixels and photos hardly get smaller.
        keepalive: Seconds between keepalive pings during a call; none by default. A server closes
            the connection if pings come more often than it permits, by default every 300 s.
        round_robin: Whether calls alternate between all addresses that the name resolves to.
        max_attempts: Maximum number of attempts of a call. A call is repeated, with exponential
            backoff, only if the server has not started to process it: no connection, or a full
            queue or thread pool. A Predict call is never repeated after the connection broke: its
            input may have crashed the server, and would crash the next one.
        concurrency: Maximum number of requests in flight, if a batch is split.
        max_response_bytes: Size of a response, and of its outputs in memory, at most: 256 MiB by
            default. A server cannot make the client need more than a few times as much.

    Raises:
        UsageError: `address` has no port, `timeout` is not positive, a secret would be sent
            unencrypted to another machine, or another argument is invalid.
    """

    @renamed_argument("attempts", "max_attempts")
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
        max_attempts: int = 4,
        concurrency: int = 4,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
    ) -> None:
        options = ChannelOptions(
            address,
            timeout=timeout,
            tls=tls,
            token=token,
            metadata=metadata,
            compression=compression,
            keepalive=keepalive,
            round_robin=round_robin,
            max_response_bytes=max_response_bytes,
        )
        self._address = address
        self._calls = Calls(options, max_attempts, concurrency)
        self._open(options)

    @property
    def address(self) -> str:
        """The address of the server."""
        return self._address

    def _open(self, options: ChannelOptions) -> None:
        """Create the transport."""
        raise NotImplementedError

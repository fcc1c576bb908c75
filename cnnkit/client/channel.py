"""Where a model server is, and how a client speaks to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from cnnkit.errors import UsageError, unknown_name
from cnnkit.wire import methods

COMPRESSIONS = {"deflate": grpc.Compression.Deflate, "gzip": grpc.Compression.Gzip}

_OPTIONS: tuple[tuple[str, Any], ...] = (
    *methods.UNLIMITED_MESSAGES,
    # A server that was just started is found within a second, not after gRPC's minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Without a pool of its own, a new client would inherit the back-off of an earlier one.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class TLS:
    """An encrypted connection, with PEM files where the usual ones do not do.

    Attributes:
        ca: The certificates of those whose word about the server is believed; by default those that
            come with gRPC.
        certificate: The client's own certificate, for a server that asks for one (mutual TLS).
        key: The private key to it.
        server_name: The name in the server's certificate, where it is not the address's.

    Raises:
        UsageError: A certificate without its key, or a key without its certificate.

    Example:
        >>> TLS(ca="ca.pem", certificate="client.pem", key="client.key").server_name is None
        True
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise UsageError(
                "A client's certificate and its key go together",
                expected="certificate= and key=, or neither",
                received="certificate" if self.key is None else "key",
            )

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            UsageError: One of them cannot be read.
        """
        return grpc.ssl_channel_credentials(
            _read(self.ca, "ca"), _read(self.key, "key"), _read(self.certificate, "certificate")
        )


@dataclass(frozen=True)
class ChannelOptions:
    """The address of a model server, and all that both kinds of client need to connect to it.

    Attributes:
        address: "HOST:PORT", or a name gRPC resolves itself, such as "dns:///models:8500".
        timeout: Seconds that a call may take unless it says otherwise.
        tls: True for an encrypted connection with the usual certificates, or a `TLS`.
        token: Sent with every call as `authorization: Bearer TOKEN`; a function is asked each time.
        metadata: More headers of every call.
        compression: "gzip" or "deflate".
        keepalive: Seconds between pings while an answer is awaited. Servers end a connection that
            pings more often than they like, by default every 300 s.
        round_robin: Whether calls take turns between all addresses that the name resolves to.

    Raises:
        UsageError: One of them cannot be, or a token would travel unencrypted to another machine.

    Example:
        >>> ChannelOptions("localhost:8500").address
        'localhost:8500'
    """

    address: str
    timeout: float = 10.0
    tls: TLS | bool = False
    # No secret is printed by accident.
    token: str | Callable[[], str] | None = field(default=None, repr=False)
    metadata: Mapping[str, str] | None = field(default=None, repr=False)
    compression: str | None = None
    keepalive: float | None = None
    round_robin: bool = False

    def __post_init__(self) -> None:
        check_address(self.address)
        check_timeout(self.timeout)
        if self.compression is not None and self.compression not in COMPRESSIONS:
            raise unknown_name("compression", self.compression, COMPRESSIONS)
        if self.keepalive is not None and not self.keepalive > 0:
            raise UsageError(
                "Pings need time between them", expected="keepalive > 0", received=self.keepalive
            )
        if self.token is not None and not self.tls and not is_loopback(self.address):
            raise UsageError(
                f"The token would travel to {self.address} for everyone to read",
                expected="tls=True, or a server on this machine",
            )
        for name, value in (self.metadata or {}).items():
            _check_header(name, value)
            # gRPC refuses the others only when the first call is made.
            if name != name.lower() or not name.isascii() or name.startswith("grpc-"):
                raise UsageError(
                    "This is not the name of a header",
                    expected="lower-case ASCII that does not begin with grpc-",
                    received=name,
                )

    def channel_arguments(self) -> dict[str, Any]:
        """Returns what `grpc.insecure_channel`, and its like in grpc.aio, take by name."""
        options = list(_OPTIONS)
        if is_loopback(self.address):
            # A proxy that the environment names for the web does not know this machine's ports.
            options.append(("grpc.enable_http_proxy", 0))
        if self.keepalive is not None:
            options.append(("grpc.keepalive_time_ms", round(self.keepalive * 1000)))
            options.append(("grpc.http2.max_pings_without_data", 0))
        if self.round_robin:
            options.append(("grpc.lb_policy_name", "round_robin"))
        if isinstance(self.tls, TLS) and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        compression = None if self.compression is None else COMPRESSIONS[self.compression]
        return {"target": self.address, "options": options, "compression": compression}

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Returns what an encrypted connection needs; None for a plain one.

        Raises:
            UsageError: A file cannot be read.
        """
        if not self.tls:
            return None
        return (self.tls if isinstance(self.tls, TLS) else TLS()).credentials()

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Returns the headers of the next call."""
        headers = tuple(self.metadata.items()) if self.metadata else ()
        if self.token is None:
            return headers
        token = self.token() if callable(self.token) else self.token
        _check_header("authorization", token)
        return (*headers, ("authorization", f"Bearer {token}"))


def check_timeout(timeout: float) -> float:
    """Returns a number of seconds a call can be given.

    Raises:
        UsageError: It is not a positive, finite number.

    Example:
        >>> check_timeout(2)
        2
    """
    if not 0 < timeout < float("inf"):
        raise UsageError(
            "A call needs a deadline", expected="a timeout above 0 seconds", received=timeout
        )
    return timeout


def check_address(address: str) -> str:
    """Returns an address that can be connected to.

    Raises:
        UsageError: It is not HOST:PORT and has no scheme of gRPC's.

    Example:
        >>> check_address("[::1]:8500")
        '[::1]:8500'
    """
    if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:", "xds:")):
        return address
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            "This is not the address of a model server",
            expected="HOST:PORT, such as localhost:8500",
            received=address,
        )
    return address


def is_loopback(address: str) -> bool:
    """Returns whether an address is surely on this machine; names are not looked up.

    Example:
        >>> is_loopback("127.0.0.1:8500"), is_loopback("ipv4:127.0.0.1:1,10.0.0.1:1")
        (True, False)
    """
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        return True
    places = rest.split(",") if scheme in ("ipv4", "ipv6") else [address]
    return all(_is_local(place.rpartition(":")[0].strip("[]")) for place in places)


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Whoever connects to 0.0.0.0 reaches this machine.
    return number.is_loopback or number.is_unspecified


def _check_header(name: str, value: str) -> None:
    # The value may be a secret: it is not told.
    if not value.isascii() or not value.isprintable():
        raise UsageError(
            f"The value of the header {name} cannot be sent",
            expected="one line of printable ASCII",
        )


def _read(path: str | Path | None, what: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"The file {path} cannot be read", expected=f"{what}= a file", received=error.strerror
        ) from error
    # gRPC would say so only in its log, and the connection would fail later.
    if b"-----BEGIN " not in content:
        raise UsageError(f"The file {path} is no PEM file", expected=f"{what}= a PEM file")
    return content

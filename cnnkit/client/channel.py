"""Options of the gRPC channel to a model server: address, TLS, headers, keepalive."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from cnnkit._files import refuse_private_key
from cnnkit.errors import UsageError, unknown_name
from cnnkit.wire import methods

COMPRESSIONS = {"deflate": grpc.Compression.Deflate, "gzip": grpc.Compression.Gzip}

# Bytes of a response, at most: as many as a request to the embedded server has by default.
DEFAULT_MAX_RESPONSE_BYTES = 2**28
# Bytes of signatures or of states of versions, at most: a large model has 20 kB. In memory they
# take 100 times as many.
_MAX_METADATA_BYTES = 2**20

# Words in the names of headers that hold secrets, and beginnings of values that are secrets.
_SECRET_NAME = re.compile(
    r"token|secret|passw|cookie|credential|authoriz|authent|assertion|apikey"
    r"|(?<![a-z])(auth|key|pass|pwd|session|sessionid|sid|jwt|bearer|signature)(?![a-z])"
)
_SECRET_VALUE = re.compile(
    r"\s*((bearer|basic|digest|negotiate|token|apikey)\s+\S{8}|aws4-)", re.IGNORECASE
)
_HEADER_NAME = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", -1),
    # Reconnect to a server that was just started within 1 s; gRPC's default backs off to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Channels of a process share subchannels by default, and with them the backoff of earlier ones.
    ("grpc.use_local_subchannel_pool", 1),
    # Whoever answers DNS requests must not replace the limits below.
    ("grpc.service_config_disable_resolution", 1),
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [
                            dict(zip(("service", "method"), path[1:].split("/"), strict=True))
                            for path in (methods.GET_MODEL_METADATA, methods.GET_MODEL_STATUS)
                        ],
                        "maxResponseMessageBytes": _MAX_METADATA_BYTES,
                    }
                ]
            }
        ),
    ),
)


@dataclass(frozen=True)
class TLS:
    """TLS options of a connection. All files are PEM.

    Attributes:
        ca: CA bundle used to verify the server; by default the one that comes with gRPC.
        certificate: The client's own certificate, for mutual TLS.
        key: Private key of `certificate`.
        server_name: Name in the server's certificate, if it differs from the host in the address.

    Raises:
        UsageError: Only one of `certificate` and `key` is given, or a private key itself.

    Example:
        >>> TLS(ca="ca.pem", certificate="client.pem", key="client.key").server_name is None
        True
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca", "certificate", "key"):
            refuse_private_key(f"`{name}`", getattr(self, name))
        if (self.certificate is None) != (self.key is None):
            raise UsageError(
                "`certificate` and `key` must be given together",
                received="certificate" if self.key is None else "key",
            )

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files and return gRPC's credentials.

        Raises:
            UsageError: A file cannot be read or is not PEM.
        """
        return grpc.ssl_channel_credentials(
            _read(self.ca, "ca"), _read(self.key, "key"), _read(self.certificate, "certificate")
        )


@dataclass(frozen=True)
class ChannelOptions:
    """Validated connection options, shared by `Client` and `AsyncClient`.

    Attributes:
        address: "HOST:PORT", or a URI that gRPC resolves, such as "dns:///models:8500".
        timeout: Default timeout of a call, in seconds.
        tls: True for TLS with the default CA bundle, or a `TLS`.
        token: Bearer token, or a function that returns it and is called before each call.
        metadata: Additional headers of every call.
        compression: "gzip" or "deflate".
        keepalive: Seconds between keepalive pings during a call. A server closes the connection if
            pings come more often than it permits, by default every 300 s.
        round_robin: Whether calls alternate between all addresses that the name resolves to.
        max_response_bytes: Size of a response, and of its outputs in memory, at most.

    Raises:
        UsageError: A value is invalid, or a secret would be sent unencrypted to another machine.

    Example:
        >>> ChannelOptions("localhost:8500").address
        'localhost:8500'
    """

    address: str
    timeout: float = 10.0
    tls: TLS | bool = False
    # Secrets stay out of the repr.
    token: str | Callable[[], str] | None = field(default=None, repr=False)
    metadata: Mapping[str, str] | None = field(default=None, repr=False)
    compression: str | None = None
    keepalive: float | None = None
    round_robin: bool = False
    max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES

    def __post_init__(self) -> None:
        check_address(self.address)
        check_timeout(self.timeout)
        if self.compression is not None and self.compression not in COMPRESSIONS:
            raise unknown_name("compression", self.compression, COMPRESSIONS)
        if self.keepalive is not None and not self.keepalive > 0:
            raise UsageError(
                "`keepalive` must be positive", expected="keepalive > 0", received=self.keepalive
            )
        if not isinstance(self.max_response_bytes, int) or not 0 < self.max_response_bytes < 2**31:
            raise UsageError(
                "`max_response_bytes` must be a size of a message",
                expected=f"1 to {2**31 - 1}",
                received=self.max_response_bytes,
            )
        is_private = bool(self.tls) or is_loopback(self.address)
        if self.token is not None and not is_private:
            raise self._unencrypted("token")
        for name, value in (self.metadata or {}).items():
            _check_header(name, value)
            if not is_private and (_SECRET_NAME.search(name.lower()) or _SECRET_VALUE.match(value)):
                raise self._unencrypted(f"metadata[{name!r}]")
            # gRPC rejects other names too, but not before the first call.
            if not _HEADER_NAME.fullmatch(name):
                raise UsageError(
                    "`metadata` must have names of headers as keys",
                    expected="lower-case ASCII that neither starts with grpc- nor ends with -bin",
                    received=name,
                )

    def _unencrypted(self, what: str) -> UsageError:
        return UsageError(
            f"`{what}` would be sent to {self.address} unencrypted",
            expected="tls=True, or a server on this machine",
        )

    def channel_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of gRPC's channel functions, except credentials."""
        options = [*_OPTIONS, ("grpc.max_receive_message_length", self.max_response_bytes)]
        if is_loopback(self.address):
            # A proxy named by the environment (http_proxy) cannot reach ports of this machine.
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
        """Return the credentials of a TLS connection, or None for an unencrypted one.

        Raises:
            UsageError: A file cannot be read or is not PEM.
        """
        if not self.tls:
            return None
        return (self.tls if isinstance(self.tls, TLS) else TLS()).credentials()

    def open(self, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
        """Open a channel for blocking calls."""
        if credentials is None:
            return grpc.insecure_channel(**self.channel_arguments())
        return grpc.secure_channel(credentials=credentials, **self.channel_arguments())

    def open_async(self, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        """Open a channel for the running event loop."""
        if credentials is None:
            return grpc.aio.insecure_channel(**self.channel_arguments())
        return grpc.aio.secure_channel(credentials=credentials, **self.channel_arguments())

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers of the next call."""
        headers = tuple(self.metadata.items()) if self.metadata else ()
        if self.token is None:
            return headers
        token = self.token() if callable(self.token) else self.token
        _check_header("authorization", token)
        return (*headers, ("authorization", f"Bearer {token}"))


def check_timeout(timeout: float) -> float:
    """Return `timeout` if it is valid.

    Args:
        timeout: Seconds.

    Raises:
        UsageError: `timeout` is not a positive, finite number.

    Example:
        >>> check_timeout(2)
        2
    """
    if not 0 < timeout < float("inf"):
        raise UsageError(
            "`timeout` must be positive and finite", expected="seconds > 0", received=timeout
        )
    return timeout


def check_address(address: str) -> str:
    """Return `address` if it is valid.

    Raises:
        UsageError: `address` is neither HOST:PORT nor a URI with one of gRPC's schemes.

    Example:
        >>> check_address("[::1]:8500")
        '[::1]:8500'
    """
    if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:", "xds:")):
        return address
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            "`address` must be the address of a model server",
            expected="HOST:PORT, such as localhost:8500",
            received=address,
        )
    return address


def is_loopback(address: str) -> bool:
    """Return True if an address is a loopback address. Names are not resolved.

    Example:
        >>> is_loopback("127.0.0.1:8500"), is_loopback("ipv4:127.0.0.1:1,10.0.0.1:1")
        (True, False)
    """
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        return True
    addresses = rest.split(",") if scheme in ("ipv4", "ipv6") else [address]
    return all(_is_local(one.rpartition(":")[0].strip("[]")) for one in addresses)


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return False
    # A connection to 0.0.0.0 reaches this machine.
    return number.is_loopback or number.is_unspecified


def _check_header(name: str, value: str) -> None:
    # The value may be a secret, so the error does not show it.
    if not isinstance(name, str) or not isinstance(value, str):
        raise UsageError(f"The header {name} must be a text", received=type(value).__name__)
    if not value.isascii() or not value.isprintable():
        raise UsageError(
            f"The value of the header {name} cannot be sent",
            expected="one line of printable ASCII",
        )


def _read(path: str | Path | None, argument: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"`{argument}` must be a file that can be read, received {path}",
            received=error.strerror,
        ) from error
    # gRPC only logs this error, and the connection fails later.
    if b"-----BEGIN " not in content:
        raise UsageError(f"`{argument}` must be a PEM file, received {path}")
    return content

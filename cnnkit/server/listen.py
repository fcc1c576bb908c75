"""Ports and TLS credentials of a server."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path

import grpc

from cnnkit._files import refuse_private_key
from cnnkit.errors import RunError, UsageError


def check_port_free(host: str, port: int) -> None:
    """Raises an error if a server cannot listen on a port.

    Checking before models are loaded saves time, and gRPC itself gives no reason.

    Args:
        host: The network interface.
        port: The port; 0 for any free one.

    Raises:
        RunError: If the port is in use, or there is no such host.

    Example:
        >>> check_port_free("127.0.0.1", 0)
    """
    with bind_port(host, port) as probe:
        probe.listen()


def reserve_port(host: str, port: int) -> socket.socket:
    """Binds a port without listening on it, so that processes of this user can share it.

    Args:
        host: The network interface.
        port: The port; 0 for any free one.

    Returns:
        A socket; while it is open, no other user can bind the port.

    Raises:
        RunError: If the port is in use, or there is no such host.

    Example:
        >>> with reserve_port("127.0.0.1", 0) as held:
        ...     held.getsockname()[1] > 0
        True
    """
    # Without SO_REUSEPORT, to find other processes that share the port already.
    check_port_free(host, port)
    return bind_port(host, port, shared=True)


def listen_error(host: str, port: int, reason: str) -> RunError:
    """Returns the error for a port that a server cannot listen on."""
    return RunError(
        f"The server cannot listen on port {port} of {host}",
        received=reason,
        hint="Stop what uses the port, or choose another one; port 0 picks a free one",
    )


def _host_error(host: str, reason: str) -> RunError:
    return RunError(
        "`host` must be an address or a name of this machine",
        expected="127.0.0.1 for this machine only, 0.0.0.0 for all interfaces, or one of its own",
        received=f"{host}: {reason}",
    )


def bind_port(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Returns a socket that is bound to a port and does not listen yet.

    Args:
        host: The network interface.
        port: The port; 0 for any free one.
        shared: Whether other processes of this user may bind it too.

    Raises:
        RunError: If the port is in use, or there is no such host.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            # Closing connections of a server that has just stopped do not block its port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (socket.gaierror, UnicodeError) as error:
        raise _host_error(host, getattr(error, "strerror", None) or str(error)) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise _host_error(host, "not an address of this machine") from error
        raise listen_error(host, port, error.strerror or str(error)) from error
    return bound


def server_credentials(
    certificate: Path, key: Path, client_authority: Path | None = None
) -> grpc.ServerCredentials:
    """Returns the TLS credentials of a server.

    Args:
        certificate: PEM file of the server's certificate chain.
        key: PEM file of its private key, not encrypted.
        client_authority: PEM file of the CA that clients' certificates must be signed by; None
            accepts clients without a certificate.

    Raises:
        UsageError: If a file is missing or not PEM, the key does not belong to the
            certificate, or a private key is given instead of its file.

    Example:
        >>> server_credentials(Path("server.pem"), Path("server.key"))  # doctest: +SKIP
    """
    # gRPC accepts any files and then fails every connection, so OpenSSL checks them first.
    server_tls_context(certificate, key, client_authority)
    authority = None if client_authority is None else client_authority.read_bytes()
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )


def server_tls_context(
    certificate: Path, key: Path, client_authority: Path | None = None
) -> ssl.SSLContext:
    """Returns the TLS settings of the REST side of a server.

    Args:
        certificate: See `server_credentials`.
        key: See `server_credentials`.
        client_authority: See `server_credentials`.

    Raises:
        UsageError: See `server_credentials`.

    Example:
        >>> server_tls_context(Path("server.pem"), Path("server.key"))  # doctest: +SKIP
    """
    for name, path in (
        ("certificate", certificate), ("key", key), ("client_authority", client_authority)
    ):  # fmt: skip
        refuse_private_key(f"`{name}`", path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
        if client_authority is not None:
            context.load_verify_locations(client_authority)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
    except (OSError, ValueError) as error:
        files = [str(file) for file in (certificate, key, client_authority) if file is not None]
        raise UsageError(
            f"{certificate} and {key} must be a certificate and its private key in PEM, not "
            "encrypted",
            received=f"{', '.join(files)}: {error}",
        ) from error


def _refuse_password() -> str:
    raise ValueError("the private key (`key`) is encrypted")

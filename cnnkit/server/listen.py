"""Taking a port, and saying why it cannot be had."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import grpc

from cnnkit.errors import RunError, UsageError


def check_port_free(host: str, port: int) -> None:
    """Tries a port before models are loaded for it, and to learn why it cannot be had.

    Raises:
        RunError: It is in use, or there is no such host.

    Example:
        >>> check_port_free("127.0.0.1", 0)
    """
    with _bound(host, port) as probe:
        probe.listen()


def reserve_port(host: str, port: int) -> socket.socket:
    """Takes a port without listening on it, so that this user's processes can share it.

    Args:
        host: The network interface.
        port: The port; 0 picks a free one.

    Returns:
        A socket; while it is open, nobody else can have the port.

    Raises:
        RunError: It is in use, or there is no such host.

    Example:
        >>> with reserve_port("127.0.0.1", 0) as held:
        ...     held.getsockname()[1] > 0
        True
    """
    # Others may be sharing it already: without the option, they are noticed.
    check_port_free(host, port)
    return _bound(host, port, shared=True)


def listen_error(host: str, port: int, reason: str) -> RunError:
    """Returns the error for a port that cannot be had."""
    return RunError(
        f"The server cannot listen on port {port} of {host}",
        received=reason,
        hint="Stop what uses the port, or choose another one; port 0 picks a free one",
    )


def _bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        try:
            # The connections of a server that has just ended do not keep its port.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(place)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise listen_error(host, port, error.strerror or str(error)) from error
    return taken


def server_credentials(
    certificate: Path, key: Path, client_authority: Path | None = None
) -> grpc.ServerCredentials:
    """Reads the files of a TLS server.

    Args:
        certificate: The server's certificate and those between it and its authority, PEM.
        key: Its private key, PEM, not encrypted.
        client_authority: Certificates of the authority that clients' certificates must come
            from; None lets in clients without one.

    Raises:
        UsageError: A file is not there or not PEM, or key and certificate are no pair.

    Example:
        >>> server_credentials(Path("server.pem"), Path("server.key"))  # doctest: +SKIP
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # gRPC would listen with anything, and then fail every connection.
        context.load_cert_chain(certificate, key, password=_no_password)
        if client_authority is not None:
            context.load_verify_locations(client_authority)
        authority = None if client_authority is None else client_authority.read_bytes()
        return grpc.ssl_server_credentials(
            [(key.read_bytes(), certificate.read_bytes())],
            root_certificates=authority,
            require_client_auth=authority is not None,
        )
    except (OSError, ValueError) as error:
        files = [str(file) for file in (certificate, key, client_authority) if file is not None]
        raise UsageError(
            "These are no files for TLS",
            expected="a certificate and its private key in PEM, not encrypted",
            received=f"{', '.join(files)}: {error}",
        ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted")

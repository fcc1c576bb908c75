"""TLS: what the server shows, and whom it lets in."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from cnnkit.errors import UsageError


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

"""The clients that a server with TLS answers, by their certificates."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Collection, Iterable, Iterator, Mapping

import grpc

from cnnkit.errors import UsageError
from cnnkit.server.status_error import StatusError

# DER of the identifier 2.5.29.37 of the extension "extended key usage".
_EXTENDED_KEY_USAGE = bytes.fromhex("551d25")
# Tag of the extensions in a certificate.
_EXTENSIONS = 0xA3
_NAMES = ("x509_subject_alternative_name", "x509_common_name")


class ClientCertificates:
    """Decides by its certificate whether a client is answered.

    TLS has then checked who signed the certificate, and that an extended key usage, if there is
    one, permits clients. A certificate without one may be that of a server, so it is refused.

    Args:
        names: Names of clients, of which a certificate must hold one, as common name or subject
            alternative name; None for any client.

    Raises:
        UsageError: If `names` is empty, or holds an empty name.

    Example:
        >>> try:
        ...     ClientCertificates(["lab.example"]).check({})
        ... except StatusError as error:
        ...     print(error)
        A client certificate is required
    """

    def __init__(self, names: Collection[str] | None = None) -> None:
        if names is not None and not (names and all(names)):
            raise UsageError("`client_names` must be names of clients", received=list(names))
        self._names = None if names is None else {name.encode() for name in names}

    def check(self, identity: Mapping[str, Iterable[bytes]]) -> None:
        """Raises an error if a client may not be answered.

        Args:
            identity: What gRPC knows of the client: `ServicerContext.auth_context()`.

        Raises:
            StatusError: UNAUTHENTICATED if its certificate is not for clients, or it needs one to
                hold a name; PERMISSION_DENIED if the certificate holds none of the names.
        """
        certificates = list(identity.get("x509_pem_cert", ()))
        if not certificates:
            if self._names is None:
                # TLS decides whether a client needs one.
                return
            raise _unauthenticated("A client certificate is required")
        if not has_extended_key_usage(certificates[0]):
            raise _unauthenticated(
                "The client certificate must have the extended key usage clientAuth"
            )
        held = {name for field in _NAMES for name in identity.get(field, ())}
        if self._names is not None and not self._names & held:
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED,
                "The client certificate holds no name that this server answers",
            )


@functools.lru_cache(maxsize=1024)
def has_extended_key_usage(certificate: bytes) -> bool:
    """Returns True if a certificate has the extension "extended key usage".

    Args:
        certificate: A valid certificate in PEM.
    """
    try:
        [whole] = _elements(ssl.PEM_cert_to_DER_cert(certificate.decode("ascii")))
        [signed, *_] = _elements(whole[1])
        for tag, content in _elements(signed[1]):
            if tag == _EXTENSIONS:
                [(_, extensions)] = _elements(content)
                return any(
                    next(_elements(extension))[1] == _EXTENDED_KEY_USAGE
                    for _, extension in _elements(extensions)
                )
    # TLS has accepted the certificate, so this is not expected. RuntimeError: from `next`.
    except (ValueError, IndexError, RuntimeError):
        pass
    return False


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the tag and the content of each DER element; all tags of certificates are one byte."""
    place = 0
    while place < len(der):
        tag, size, place = der[place], der[place + 1], place + 2
        if size & 0x80:
            digits = size & 0x7F
            size = int.from_bytes(der[place : place + digits])
            place += digits
        yield tag, der[place : place + size]
        place += size


def _unauthenticated(details: str) -> StatusError:
    return StatusError(grpc.StatusCode.UNAUTHENTICATED, details)

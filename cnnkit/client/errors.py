"""What a model server's refusals mean, and what to do about each."""

from __future__ import annotations

import re
from typing import ClassVar

from cnnkit.errors import CnnkitError


class ServerError(CnnkitError):
    """A call that the model server did not answer with a result.

    Args:
        problem: What is wrong, as a sentence without its full stop.
        code: The name of the gRPC status code, such as "NOT_FOUND".
        details: The server's own words, all lines of them.
        hint: The next step for the reader.

    Attributes:
        retryable: Whether the same call may be made again: the server has not begun to work on it.

    Example:
        >>> error = ServerError("The call failed", code="INTERNAL", details="oops")
        >>> error.code, str(error)
        ('INTERNAL', 'The call failed. Received: INTERNAL: oops.')
    """

    retryable: ClassVar[bool] = False

    def __init__(self, problem: str, *, code: str, details: str, hint: str | None = None) -> None:
        self.code = code
        self.details = details
        # Later lines name the nodes of the server's graph, which say nothing to a caller.
        first = details.strip().partition("\n")[0]
        received = f"{code}: {first}" if first else code
        super().__init__(problem, received=received, hint=hint)


class ServerUnavailable(ServerError):
    """The server cannot answer now."""


class ServerUnreachable(ServerUnavailable):
    """No server there: the call has not left this machine."""

    retryable = True


class ConnectionLost(ServerUnavailable):
    """The connection broke while an answer was awaited; the server may have died of the request."""


class ServerBusy(ServerUnavailable):
    """The server is there, but its queue or its threads are full, or it is not ready yet."""

    retryable = True


class TLSError(ServerUnavailable):
    """The encrypted connection could not be made: a certificate, or one side speaks plainly."""


class NotAuthorized(ServerError):
    """The server does not let this caller in."""


class ModelNotFound(ServerError):
    """The server has no such model, version or label."""


class InvalidRequest(ServerError):
    """The server understood the request and refuses it as it is."""


class MessageTooLarge(ServerError):
    """The request or the answer is larger than a limit on the way."""


class DeadlineExceeded(ServerError):
    """No answer within the time that the caller gave."""


class InvalidResponse(ServerError):
    """The server answered with something that is not what it should be."""


# What gRPC, and the proxies that people put in between, say when an established connection ends.
_BROKEN = (
    "Stream removed",
    "Socket closed",
    "Connection reset",
    "Broken pipe",
    "GOAWAY",
    "connection termination",
    "disconnect/reset",
)
_INSECURE = ("handshake failed", "SSL_ERROR", "verification check failed")
_NO_GRPC = ("http1", "Expected SETTINGS frame")
_NOT_THERE = (
    "failed to connect",
    "Connection refused",
    "DNS resolution",
    "No route to host",
    "no healthy upstream",
)
# The servers' own words for "later", before they have begun to work on a request.
_BUSY = (
    "batch scheduling queue",
    "labels does not init",
    "Server Threadpool Exhausted",
    "The server is stopping",
)
_TOO_LARGE = "larger than max"
_LARGEST_BATCH = re.compile(r"larger than maximum input batch size (\d+)")


def server_error(
    code: str, details: str, *, address: str, model: str, timeout: float, harmless: bool = False
) -> ServerError:
    """Returns the error that a failed call means.

    Args:
        code: The name of the gRPC status code.
        details: The text that came with it.
        address: Where the server was looked for.
        model: The model that was asked for.
        timeout: The seconds that the call was given.
        harmless: Whether the call carried no input that a server could die of.

    Returns:
        The error, to be raised.

    Example:
        >>> server_error("DEADLINE_EXCEEDED", "", address="a:1", model="m", timeout=2).problem
        'a:1 did not answer within 2 s'
    """
    kind, problem, hint = _meaning(code, details, address, model, timeout, harmless)
    return kind(problem, code=code, details=details, hint=hint)


def _meaning(
    code: str, details: str, address: str, model: str, timeout: float, harmless: bool
) -> tuple[type[ServerError], str, str | None]:
    # Later lines are a dump of the server's, which may hold any word.
    first = details.partition("\n")[0]
    if code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") and _has(first, _BUSY):
        return ServerBusy, f"{address} is busy", "Send less at once, or try again in a moment"
    if code == "UNAVAILABLE":
        return _unavailable(first, address, harmless)
    if code == "NOT_FOUND" or "version label" in first:
        return ModelNotFound, f"{address} has no such model, version or label of {model!r}", None
    if code == "DEADLINE_EXCEEDED":
        return (
            DeadlineExceeded,
            f"{address} did not answer within {timeout:g} s",
            "Give the call a longer timeout, send fewer images at once, or look whether the "
            "server still runs",
        )
    if code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"):
        return InvalidRequest, f"{address} refuses this request to {model!r}", _advice(first)
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return (
            NotAuthorized,
            f"{address} does not let this client ask {model!r}",
            "Give the client a token or a certificate that the server accepts",
        )
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in first:
        return (
            MessageTooLarge,
            f"A message to or from {address} is larger than it may be",
            "Send fewer images at once: batch_size=1 is one in each request",
        )
    hints = {
        "RESOURCE_EXHAUSTED": "The server is at its limit: send less at once, or try again later",
        "UNIMPLEMENTED": "Use the port of the server's gRPC interface, 8500 by custom",
    }
    problem = f"{address} failed on this request to {model!r}"
    return ServerError, problem, hints.get(code, "The server's log may say why")


def _unavailable(
    text: str, address: str, harmless: bool
) -> tuple[type[ServerError], str, str | None]:
    if _has(text, _INSECURE):
        return (
            TLSError,
            f"No encrypted connection to {address}",
            "Look at the certificates (ca=, certificate=, server_name=), and whether the server "
            "speaks TLS at all",
        )
    if _has(text, _NO_GRPC):
        return (
            ServerUnreachable,
            f"{address} does not speak gRPC",
            "Use the port of the server's gRPC interface, 8500 by custom",
        )
    if _has(text, _NOT_THERE):
        if _has(text, _BROKEN):
            return (
                ServerUnreachable,
                f"{address} ends every connection at once",
                "The server may want TLS (tls=), or a certificate of the client's, or be starting",
            )
        port = address.rpartition(":")[2]
        port = port if port.isdigit() else "8500"
        return (
            ServerUnreachable,
            f"No model server answers at {address}",
            f"Start one with `cnnkit serve DIR --port {port}`",
        )
    if _has(text, _BROKEN):
        return (
            ConnectionLost,
            f"The connection to {address} ended in the middle of a call",
            "Look whether the server still runs, and whether it wants TLS"
            if harmless
            else "This input may have killed the server: look at its log before sending it again",
        )
    return ServerUnavailable, f"{address} cannot answer now", "Try again in a moment"


def _advice(text: str) -> str | None:
    largest = _LARGEST_BATCH.search(text)
    if largest:
        return f"Send at most {largest[1]} at once: batch_size={largest[1]}"
    if text.startswith("Serving signature key"):
        return "metadata() lists the model's signatures"
    return None


def _has(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)

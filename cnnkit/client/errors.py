"""Exceptions of the client, and the classification of gRPC failures.

    ServerError
    |-- ServerUnavailable
    |   |-- ServerUnreachable   no connection (retried)
    |   |-- ConnectionLost      the connection broke during a call
    |   |-- ServerBusy          queue or threads full, starting or stopping (retried)
    |   `-- TLSError            TLS handshake or certificate
    |-- NotAuthorized
    |-- ModelNotFound
    |-- InvalidRequest
    |-- MessageTooLarge
    |-- DeadlineExceeded
    `-- InvalidResponse

A gRPC status code alone does not separate a full queue from a dead server: both are UNAVAILABLE. So
`server_error` reads the text of the status too. `STATUS_TEXTS` lists every substring it looks for,
with the program that writes it and the version in which it was found.
"""

from __future__ import annotations

import re
from typing import ClassVar, NamedTuple

from cnnkit.errors import CnnkitError

# Texts of TensorFlow around that of a failed check, and the row that a text of cnnkit begins with.
_ASSERTION = re.compile(r"assertion failed: \[(.*)\]")
_SEVERAL = re.compile(r"(?<!\d)\d+ root error\(s\) found\.?\s*\(0\)\s*(?:[A-Z_]+: |[A-Z][\w ]+: )?")
_ROW = re.compile(r"\A\w+\[\d{1,9}\]: ")


def error_text(details: str) -> str:
    r"""Return the sentence for a reader in the details of a gRPC status.

    Later lines name nodes of the server's graph, which do not help a caller.

    Example:
        >>> error_text("assertion failed: [a request has 0 images]\n\t [[{{node x}}]]")
        'a request has 0 images'
    """
    first = _SEVERAL.sub("", details.strip()).partition("\n")[0]
    failed = _ASSERTION.fullmatch(first.strip())
    # Graphs of version 0.1.0 have each value in brackets of its own.
    return first if failed is None else failed[1].replace("] [", " ")


class ServerError(CnnkitError):
    """A call for which the model server returned no result.

    Args:
        problem: What failed, as a sentence without its full stop.
        code: Name of the gRPC status code, such as "NOT_FOUND".
        details: Text of the status, all lines of it.
        hint: What to do next.
        request_id: Id of the call in the server's log; None if the server told none.

    Attributes:
        retryable: Whether the same call may be sent again, because the server has not started to
            process it.

    Example:
        >>> error = ServerError("The call failed", code="INTERNAL", details="oops")
        >>> error.code, str(error)
        ('INTERNAL', 'The call failed. Received: INTERNAL: oops.')
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        problem: str,
        *,
        code: str,
        details: str,
        hint: str | None = None,
        request_id: str | None = None,
    ) -> None:
        self.code = code
        self.details = details
        self.request_id = request_id
        text = _ROW.sub("", error_text(details))
        super().__init__(problem, received=f"{code}: {text}" if text else code, hint=hint)


class ServerUnavailable(ServerError):
    """The server cannot process calls at present."""


class ServerUnreachable(ServerUnavailable):
    """There is no connection to a server; the request was not sent."""

    retryable = True


class ConnectionLost(ServerUnavailable):
    """The connection broke during a call; the request may have crashed the server."""


class ServerBusy(ServerUnavailable):
    """The server's queue or threads are full, or it is starting or stopping."""

    retryable = True


class TLSError(ServerUnavailable):
    """The TLS connection failed: a certificate was rejected, or one side does not use TLS."""


class NotAuthorized(ServerError):
    """The server rejected the client's credentials."""


class ModelNotFound(ServerError):
    """The server has no such model, version or version label."""


class InvalidRequest(ServerError):
    """The server rejected the request as invalid.

    Args:
        problem: See `ServerError`.
        code: See `ServerError`.
        details: See `ServerError`.
        hint: See `ServerError`.
        row: Index of the row of the batch that the server refuses, or None if it is not known.
        request_id: See `ServerError`.
    """

    def __init__(
        self,
        problem: str,
        *,
        code: str,
        details: str,
        hint: str | None = None,
        row: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(problem, code=code, details=details, hint=hint, request_id=request_id)
        self.row = row


class MessageTooLarge(ServerError):
    """The request or the response exceeds a size limit."""


class DeadlineExceeded(ServerError):
    """No response came before the deadline."""


class InvalidResponse(ServerError):
    """The response is not a valid message of a model server."""


class StatusText(NamedTuple):
    """A substring of a gRPC status text, and its meaning.

    Attributes:
        text: The substring.
        meaning: One of "busy", "stopping", "broken", "tls", "not grpc", "unreachable", "too large",
            "label".
        source: The program that writes it, and the version in which it was found.
    """

    text: str
    meaning: str
    source: str


_GRPC = "gRPC C core 1.76 to 1.85"
_STRERROR = "strerror() of the operating system, quoted by gRPC C core"
_ENVOY = "Envoy 1.30"
_SERVING = "TensorFlow Serving 2.21"
_FULL_THREADS = "Server Threadpool Exhausted"
STATUS_TEXTS = (
    # The server refuses the call before it starts to process it.
    StatusText("batch scheduling queue", "busy", "batching of TensorFlow 2.21"),
    StatusText("labels does not init", "busy", _SERVING),
    StatusText(_FULL_THREADS, "busy", "gRPC C++ server of TensorFlow Serving 2.21"),
    StatusText("Server memory for requests is full", "busy", "cnnkit.server.memory_budget"),
    StatusText("The server is stopping", "stopping", "cnnkit.server.limits"),
    # An established connection ended.
    StatusText("Stream removed", "broken", _GRPC),
    StatusText("Socket closed", "broken", _GRPC),
    StatusText("GOAWAY", "broken", _GRPC),
    StatusText("Connection reset", "broken", _STRERROR),
    StatusText("Broken pipe", "broken", _STRERROR),
    StatusText("connection termination", "broken", _ENVOY),
    StatusText("disconnect/reset", "broken", _ENVOY),
    # The TLS handshake failed.
    StatusText("handshake failed", "tls", _GRPC),
    StatusText("SSL_ERROR", "tls", _GRPC),
    StatusText("verification check failed", "tls", _GRPC),
    # The other side does not speak HTTP/2.
    StatusText("http1", "not grpc", _GRPC),
    StatusText("Expected SETTINGS frame", "not grpc", _GRPC),
    # No connection was established.
    StatusText("failed to connect", "unreachable", _GRPC),
    StatusText("DNS resolution", "unreachable", _GRPC),
    StatusText("Connection refused", "unreachable", _STRERROR),
    StatusText("No route to host", "unreachable", _STRERROR),
    StatusText("no healthy upstream", "unreachable", _ENVOY),
    # Refusals of one request.
    StatusText("larger than max", "too large", _GRPC),
    StatusText("version label", "label", _SERVING),
)
# Refusals that name what to change: batching of TensorFlow 2.21, TensorFlow Serving 2.21.
_MAX_BATCH = re.compile(r"larger than maximum input batch size (\d{1,9})(?!\d)")
_UNKNOWN_SIGNATURE = "Serving signature key"
_MERGED_SHAPES = "padding is turned off"


# The class of an error, its text with {address}, {model} and {timeout}, and its hint.
_Classified = tuple[type[ServerError], str, str | None]

_BUSY: _Classified = (
    ServerBusy,
    "{address} is busy",
    "Send less at once, or try again in a moment",
)
_STOPPING: _Classified = (
    ServerBusy,
    "{address} is stopping and has not started to process this call",
    "Try again in a moment, or use another server",
)
_READ_LOG = "The server's log may say why"
_GRPC_PORT = "Use the port of the server's gRPC interface, 8500 by custom"


def server_error(
    code: str,
    details: str,
    *,
    address: str,
    model: str,
    timeout: float,
    idempotent: bool = False,
    request_id: str | None = None,
) -> ServerError:
    """Return the exception for a failed call.

    Args:
        code: Name of the gRPC status code.
        details: Text of the status.
        address: Address of the server.
        model: Name of the model in the request.
        timeout: Seconds that the call was given.
        idempotent: Whether the call may be repeated after the connection broke. False for Predict:
            its input may have crashed the server.
        request_id: Id of the call in the server's log; None if the server told none.

    Example:
        >>> server_error("DEADLINE_EXCEEDED", "", address="a:1", model="m", timeout=2).problem
        'a:1 did not answer within 2 s'
    """
    # Without later lines: they are a dump of the server's graph, which may contain any word.
    first = error_text(details)
    found = {known.meaning for known in STATUS_TEXTS if known.text in first}
    # gRPC cancels calls that wait for a server that stops. Those that this client cancels do not
    # come here.
    if code == "CANCELLED" or (code == "UNAVAILABLE" and "stopping" in found):
        error, problem, hint = _STOPPING
    elif code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") and "busy" in found:
        error, problem, hint = _BUSY
        if _FULL_THREADS in first:
            hint = f"{hint}. TensorFlow Serving takes --grpc_max_threads calls at once"
    elif code == "UNAVAILABLE":
        error, problem, hint = _classify_unavailable(found, address, idempotent)
    else:
        error, problem, hint = _classify_refusal(code, found, first)
        if hint == _READ_LOG and request_id is not None:
            hint = f"{hint}, at the request {request_id}"
    problem = problem.format(address=address, model=repr(model), timeout=f"{timeout:g}")
    return error(problem, code=code, details=details, hint=hint, request_id=request_id)


def _classify_refusal(code: str, found: set[str], text: str) -> _Classified:
    """Classify a failed call whose code is not UNAVAILABLE."""
    if code == "NOT_FOUND" or "label" in found:
        return ModelNotFound, "{address} has no such model, version or label of {model}", None
    if code == "DEADLINE_EXCEEDED":
        return (
            DeadlineExceeded,
            "{address} did not answer within {timeout} s",
            "Give the call a longer timeout, send fewer images at once, or check that the server "
            "is running",
        )
    if code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"):
        return InvalidRequest, "{address} refuses this request to {model}", _advice(text)
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return (
            NotAuthorized,
            "{address} does not authorize this client to use {model}",
            "Give the client a token or a certificate that the server accepts",
        )
    if code == "RESOURCE_EXHAUSTED" and "too large" in found:
        return (
            MessageTooLarge,
            "A message to or from {address} exceeds a size limit",
            "Send fewer images at once: batch_size=1 sends each in its own request. "
            "`max_response_bytes` limits a response; signatures and states have 1 MiB",
        )
    hints = {
        "RESOURCE_EXHAUSTED": "The server is at its limit: send less at once, or try again later",
        "UNIMPLEMENTED": _GRPC_PORT,
    }
    hint = hints.get(code, _READ_LOG)
    return ServerError, "{address} failed on this request to {model}", hint


def _classify_unavailable(found: set[str], address: str, idempotent: bool) -> _Classified:
    """Classify a failed call whose code is UNAVAILABLE."""
    if "tls" in found:
        return (
            TLSError,
            "No TLS connection to {address}",
            "Check the certificates (ca=, certificate=, server_name=), and whether the server "
            "uses TLS",
        )
    if "not grpc" in found:
        return ServerUnreachable, "{address} does not speak gRPC", _GRPC_PORT
    if "unreachable" in found and "broken" in found:
        return (
            ServerUnreachable,
            "{address} closes every connection immediately",
            "The server may require TLS (tls=) or a client certificate, or be starting",
        )
    if "unreachable" in found:
        port = address.rpartition(":")[2]
        port = port if port.isdigit() else "8500"
        return (
            ServerUnreachable,
            "No model server answers at {address}",
            f"Start one with `cnnkit serve DIR --port {port}`",
        )
    if "broken" in found:
        return (
            ConnectionLost,
            "The connection to {address} broke during a call",
            "Check that the server is running, and whether it requires TLS"
            if idempotent
            else "This input may have crashed the server: read its log before sending it again",
        )
    return ServerUnavailable, "{address} is unavailable", "Try again in a moment"


def batch_limit(error: ServerError) -> int | None:
    """Return the number of rows that a server takes at once, if it refuses a request for that.

    Example:
        >>> details = "Task size 9 is larger than maximum input batch size 8"
        >>> batch_limit(ServerError("No", code="INVALID_ARGUMENT", details=details))
        8
    """
    largest = _MAX_BATCH.search(error_text(error.details))
    return int(largest[1]) if largest else None


def _advice(text: str) -> str | None:
    """Return a hint for a request that the server rejected."""
    largest = _MAX_BATCH.search(text)
    if largest:
        return f"Send at most {largest[1]} at once: batch_size={largest[1]}"
    if text.startswith(_UNKNOWN_SIGNATURE):
        return "metadata() lists the model's signatures"
    if _MERGED_SHAPES in text:
        return (
            "The server merges requests (batching), and another caller sent images of another "
            "size: send it again, or turn batching off"
        )
    return None

"""What a model server's refusals mean, and what to do about each."""

from __future__ import annotations

from collections.abc import Callable

from cnnkit.errors import CnnkitError


class ServerError(CnnkitError):
    """A call that the model server did not answer with a result.

    Args:
        problem: What is wrong, as a sentence without its full stop.
        code: The name of the gRPC status code, such as "NOT_FOUND".
        details: The server's own words, all lines of them.
        hint: The next step for the reader.

    Example:
        >>> error = ServerError("The call failed", code="INTERNAL", details="oops")
        >>> error.code, str(error)
        ('INTERNAL', 'The call failed. Received: INTERNAL: oops.')
    """

    def __init__(self, problem: str, *, code: str, details: str, hint: str | None = None) -> None:
        self.code = code
        self.details = details
        # Later lines name the nodes of the server's graph, which say nothing to a caller.
        first = details.strip().partition("\n")[0]
        received = f"{code}: {first}" if first else code
        super().__init__(problem, received=received, hint=hint)


class ServerUnavailable(ServerError):
    """No server there, or the connection to it broke."""


class ModelNotFound(ServerError):
    """The server has no such model, version or label."""


class InvalidRequest(ServerError):
    """The server understood the request and refuses it as it is."""


class DeadlineExceeded(ServerError):
    """No answer within the time that the caller gave."""


# What gRPC says when an established connection ends while an answer is awaited.
_BROKEN = ("Stream removed", "Socket closed", "Connection reset", "Broken pipe", "GOAWAY")
_NOT_THERE = ("failed to connect", "Connection refused", "DNS resolution", "No route to host")


def server_error(
    code: str,
    details: str,
    *,
    address: str,
    model: str,
    timeout: float,
    versions: Callable[[], str],
) -> ServerError:
    """Returns the error that a failed call means.

    Args:
        code: The name of the gRPC status code.
        details: The text that came with it.
        address: Where the server was looked for.
        model: The model that was asked for.
        timeout: The seconds that the call was given.
        versions: Says which versions of the model there are; asked only when that helps.

    Returns:
        The error, to be raised.

    Example:
        >>> server_error("DEADLINE_EXCEEDED", "", address="a:1", model="m", timeout=2,
        ...              versions=str).problem
        'a:1 did not answer within 2 s'
    """
    if code == "UNAVAILABLE":
        return _unavailable(code, details, address)
    if code == "NOT_FOUND" or "version label" in details.partition("\n")[0]:
        return ModelNotFound(
            f"{address} has no such model, version or label of {model!r}",
            code=code,
            details=details,
            hint=versions(),
        )
    if code == "DEADLINE_EXCEEDED":
        return DeadlineExceeded(
            f"{address} did not answer within {timeout:g} s",
            code=code,
            details=details,
            hint="Give the call a longer timeout, send fewer images at once, or look whether the "
            "server still runs",
        )
    if code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"):
        return InvalidRequest(
            f"{address} refuses this request to {model!r}", code=code, details=details
        )
    hints = {
        "RESOURCE_EXHAUSTED": "The server is at its limit: send less at once, or try again later",
        "UNIMPLEMENTED": "Use the port of the server's gRPC interface, 8500 by custom",
    }
    return ServerError(
        f"{address} failed on this request to {model!r}",
        code=code,
        details=details,
        hint=hints.get(code, "The server's log may say why"),
    )


def _unavailable(code: str, details: str, address: str) -> ServerUnavailable:
    if any(text in details for text in _BROKEN):
        return ServerUnavailable(
            f"The connection to {address} ended in the middle of a call",
            code=code,
            details=details,
            hint="This input may have killed the server: look at its log before sending it again",
        )
    if any(text in details for text in _NOT_THERE):
        port = address.rpartition(":")[2]
        port = port if port.isdigit() else "8500"
        return ServerUnavailable(
            f"No model server answers at {address}",
            code=code,
            details=details,
            hint=f"Start one with `cnnkit serve DIR --port {port}`",
        )
    return ServerUnavailable(
        f"{address} cannot answer now", code=code, details=details, hint="Try again in a moment"
    )

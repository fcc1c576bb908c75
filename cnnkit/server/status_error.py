"""Errors that a server sends as a gRPC status code with details."""

from __future__ import annotations

import re

import grpc

from cnnkit.errors import escape_controls, truncate

# Details of UNAVAILABLE for a call that was started, which clients therefore do not repeat.
STOPPED = "The server stopped during the call"

# Bytes of status details, percent-encoded in a header: gRPC drops headers of more than 8 KiB.
_MAX_DETAILS = 4000
# Characters of a client's name in status details, at most.
_MAX_NAME = 500
# Control characters that TensorFlow's own texts hold.
_LAYOUT = re.compile(r"([\n\t])")

# An absolute path, but not the middle of an operation's name such as while/body/conv.
_PATH = re.compile(r"(?<![\w.}\])])(?:/[\w.@+~-]+){2,}/?")


class StatusError(Exception):
    """An error that ends a request with a gRPC status.

    Args:
        code: The status code.
        details: The status details, for the client.
        http_status: The status code of REST; None for that which stands for `code`.

    Example:
        >>> StatusError(grpc.StatusCode.NOT_FOUND, "no such model").code.name
        'NOT_FOUND'
    """

    def __init__(self, code: grpc.StatusCode, details: str, http_status: int | None = None) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.http_status = http_status


def too_large(details: str) -> StatusError:
    """Returns the error for a message that is too large."""
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, details, http_status=413)


def invalid_argument(details: str) -> StatusError:
    """Returns an INVALID_ARGUMENT error."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, details)


def quote_name(name: str) -> str:
    r"""Returns a name that a client sent for a text: clients print what they receive.

    Example:
        >>> quote_name("cat\x1b[2J\ndog")
        'cat\\x1b[2J\\ndog'
    """
    return escape_controls(truncate(name, _MAX_NAME))


def redact_paths(text: str) -> str:
    """Replaces absolute paths of the server in a text for clients by `<path>`.

    Example:
        >>> redact_paths("/srv/models/digits/1/variables: not found in {{node while/body}}")
        '<path>: not found in {{node while/body}}'
    """
    return _PATH.sub("<path>", text)


def truncate_details(text: str) -> str:
    """Truncates status details so that they fit into a header after percent-encoding.

    Control characters are escaped, except for line breaks and tabs, which texts of TensorFlow have.

    Example:
        >>> len(truncate_details("x" * 9000)), len(truncate_details("\u00e9" * 9000))
        (4000, 666)
    """
    text = "".join(
        part if part in ("\n", "\t") else escape_controls(part) for part in _LAYOUT.split(text)
    )
    raw = text.encode(errors="replace")
    room = _MAX_DETAILS
    for position, byte in enumerate(raw):
        # Printable ASCII except % is not encoded; any other byte becomes three.
        room -= 1 if 0x20 <= byte < 0x7F and byte != ord("%") else 3
        if room < 0:
            return raw[:position].decode(errors="ignore")
    return text

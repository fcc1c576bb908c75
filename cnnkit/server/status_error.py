"""A request that is answered with a status code instead of a result."""

from __future__ import annotations

import re

import grpc

# A status text travels percent-encoded in a header, and gRPC drops headers of more than 8 KiB.
_LONGEST_TEXT = 4000

# An absolute path, but not the middle of a node's name such as while/body/conv.
_PATH = re.compile(r"(?<![\w.}\])])(?:/[\w.@+~-]+){2,}/?")


class StatusError(Exception):
    """Ends the handling of a request.

    Args:
        code: The status to answer with.
        text: The details to answer with, for the reader at the other end.

    Example:
        >>> StatusError(grpc.StatusCode.NOT_FOUND, "no such model").code.name
        'NOT_FOUND'
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def invalid_argument(text: str) -> StatusError:
    """Returns the refusal of a request that is wrong in itself."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, text)


def without_paths(text: str) -> str:
    """Takes the server's paths out of a text that goes to a client.

    Example:
        >>> without_paths("/srv/models/digits/1/variables: not found in {{node while/body}}")
        '<path>: not found in {{node while/body}}'
    """
    return _PATH.sub("<path>", text)


def shorten(text: str) -> str:
    """Cuts a text so that it fits into a header, encoded as it travels.

    Example:
        >>> len(shorten("x" * 9000)), len(shorten("\u00e9" * 9000))
        (4000, 666)
    """
    raw = text.encode(errors="replace")
    room = _LONGEST_TEXT
    for position, byte in enumerate(raw):
        room -= 1 if 0x20 <= byte < 0x7F and byte != ord("%") else 3
        if room < 0:
            return raw[:position].decode(errors="ignore")
    return text

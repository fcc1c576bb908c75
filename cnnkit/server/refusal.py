"""A request that is answered with a status code instead of a result."""

from __future__ import annotations

import grpc


class Refusal(Exception):
    """Ends the handling of a request.

    Args:
        code: The status to answer with.
        text: The details to answer with, for the reader at the other end.

    Example:
        >>> Refusal(grpc.StatusCode.NOT_FOUND, "no such model").code.name
        'NOT_FOUND'
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def invalid(text: str) -> Refusal:
    """Returns the refusal of a request that is wrong in itself."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, text)

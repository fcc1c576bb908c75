"""Ids of requests, and the access log: one line for each request that has ended."""

from __future__ import annotations

import json
import logging
import os
import re
from typing import Any

from cnnkit.server.status_error import quote_name
from cnnkit.wire.methods import WELL_FORMED_ID

# Text that needs no quotes in a line of NAME=VALUE pairs.
_PLAIN = re.compile(r"[^\s\"=]+")

_LOG = logging.getLogger("cnnkit.server.access")


def request_id(given: object) -> str:
    """Returns the id of a request: the one that its client has given, or a new one.

    Args:
        given: The client's id. It is taken if it is a text of at most 128 letters, digits and
            ``. _ : / + = @ -`` that begins with a letter or a digit.

    Example:
        >>> request_id("order-7"), len(request_id("two words"))
        ('order-7', 16)
    """
    if isinstance(given, str) and WELL_FORMED_ID.fullmatch(given):
        return given
    return os.urandom(8).hex()


def log_request(
    *,
    method: str,
    model: str,
    version: str,
    signature: str,
    code: str,
    seconds: float,
    request_bytes: int,
    response_bytes: int,
    request_id: str,
) -> None:
    """Logs a request that has ended, as one line of the logger `cnnkit.server.access`.

    The attribute `request` of the record holds the fields for a formatter of JSON.

    Args:
        method: Name of the method.
        model: Name of the model, of which the client may have made up any.
        version: Number of the version that was called; empty if none was found.
        signature: Name of the signature; empty likewise.
        code: Name of the gRPC status code.
        seconds: Time from its first byte to its answer.
        request_bytes: Bytes of the message, as sent.
        response_bytes: Bytes of the answer; 0 for an error.
        request_id: Id of the request.
    """
    fields: dict[str, Any] = {
        "method": method,
        "model": quote_name(model),
        "version": version,
        "signature": signature,
        "code": code,
        "milliseconds": round(1000 * seconds, 3),
        "request_bytes": request_bytes,
        "response_bytes": response_bytes,
        "request_id": request_id,
    }
    line = " ".join(f"{name}={_shown(value)}" for name, value in fields.items())
    _LOG.info("%s", line, extra={"request": fields})


def _shown(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)

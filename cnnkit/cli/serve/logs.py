"""Log lines of the embedded server on standard error, as text or as JSON."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from cnnkit._files import json_text
from cnnkit.cli.console import MAX_LINE, LogFormatter
from cnnkit.errors import truncate


class JsonFormatter(logging.Formatter):
    """A formatter whose records are JSON objects of one line each.

    Every object has `time` (UTC), `level`, `logger` and `message`. Lines of the access log have the
    fields of the request instead of the message, and errors the traceback as `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        request = getattr(record, "request", None)
        fields |= (
            {"message": truncate(record.getMessage(), MAX_LINE)} if request is None else request
        )
        if record.exc_info:
            fields["exception"] = truncate(self.formatException(record.exc_info), MAX_LINE)
        return json_text(fields)


def log_to_stderr(log_format: str | None) -> None:
    """Log requests, and loaded and unloaded versions, to standard error from now on.

    Args:
        log_format: "text" or "json"; None for text.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else LogFormatter("%(asctime)s %(message)s")
    )
    logging.basicConfig(handlers=[handler])
    logging.getLogger("cnnkit.server").setLevel(logging.INFO)

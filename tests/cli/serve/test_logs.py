"""Lines of the server's log, as text and as JSON."""

import json
import logging

import pytest

from cnnkit.cli.console import MAX_LINE, LogFormatter
from cnnkit.cli.serve import logs
from cnnkit.cli.serve.logs import JsonFormatter, log_to_stderr


@pytest.fixture
def level():
    """Puts the level of the server's log back."""
    log = logging.getLogger("cnnkit.server")
    before = log.level
    log.setLevel(logging.ERROR)
    yield lambda: log.level
    log.setLevel(before)


@pytest.mark.parametrize(
    ("name", "kind"), [(None, LogFormatter), ("text", LogFormatter), ("json", JsonFormatter)]
)
def test_the_log_of_each_format(monkeypatch, level, name, kind):
    """Loaded versions and requests are told, which other programs leave to whoever imports them."""
    given = []
    monkeypatch.setattr(logs.logging, "basicConfig", lambda handlers: given.extend(handlers))
    log_to_stderr(name)
    [handler] = given
    assert type(handler) is logging.StreamHandler and type(handler.formatter) is kind
    assert level() == logging.INFO
    record = logging.makeLogRecord({"msg": "a %s", "args": ("b",), "created": 0.0})
    line = handler.format(record)
    if kind is LogFormatter:
        assert line.endswith(" a b") and line.startswith("19")
    else:
        assert json.loads(line)["message"] == "a b"


def test_a_line_of_json():
    """The time is that of the record, in UTC; a long text is cut."""
    record = logging.makeLogRecord(
        {"msg": "x" * (MAX_LINE + 1), "levelname": "INFO", "name": "a.b", "created": 86399.0625}
    )
    found = json.loads(JsonFormatter().format(record))
    assert found.pop("message").startswith("x" * MAX_LINE + "...")
    assert found == {"time": "1970-01-01T23:59:59.062+00:00", "level": "INFO", "logger": "a.b"}
    try:
        raise KeyError("x" * (MAX_LINE + 1))
    except KeyError as error:
        record.exc_info = (KeyError, error, error.__traceback__)
    record.request = {"method": "Predict"}
    found = json.loads(JsonFormatter().format(record))
    assert found["method"] == "Predict" and "message" not in found
    assert found["exception"].startswith("Traceback ")
    assert len(found["exception"]) < MAX_LINE + 50

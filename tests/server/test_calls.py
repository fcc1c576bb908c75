"""What is done about every call: its client, its status, its count and its line."""

import asyncio
import contextlib
import logging
from concurrent import futures

import grpc
import pytest
from google.protobuf.message import DecodeError

from cnnkit.server.calls import Caller, CallHandler
from cnnkit.server.client_certificate import ClientCertificates
from cnnkit.server.limits import ServerLimits
from cnnkit.server.status_error import STOPPED, StatusError


class Counts:
    """The calls that are open and those that have ended."""

    def __init__(self):
        self.open, self.ended = 0, []

    @contextlib.contextmanager
    def open_request(self):
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    def finish_request(self, *told):
        assert self.open == 0
        self.ended.append(told)


class Tracing:
    """The spans that were begun and ended."""

    def __init__(self):
        self.told = []

    def begin(self, method, headers, request_id):
        self.told.append((method, headers, request_id))
        return "span"

    def end(self, span, called, code):
        self.told.append((span, called, code))


def called(handle, *, authorize=None, clients=None, **options):
    """Calls a handler; returns the answer or the error, and what was counted and traced."""
    counts, tracing, read = Counts(), Tracing(), []

    async def receive():
        read.append(1)
        return b"request"

    async def run():
        with futures.ThreadPoolExecutor(1) as threads:
            calls = CallHandler(
                ServerLimits(), threads, clients, counts, tracing=tracing, **options
            )
            caller = Caller("ipv4:10.0.0.7:1", {}, receive, "r-7", {"a": "b"}, authorize)
            return await calls.call("Predict", caller, lambda request: handle(request, calls))

    try:
        answer = asyncio.run(run())
    except (StatusError, asyncio.CancelledError) as error:
        answer = error
    [told] = counts.ended
    *labels, seconds = told
    assert 0 <= seconds < 30
    (begun, ended) = tracing.told
    assert begun == ("Predict", {"a": "b"}, "r-7")
    assert ended == ("span", tuple(labels[1:4]), labels[4])
    return answer, labels, read


async def answering(request, calls):
    assert request.take() == b"request" and request.take() == b""
    request.called = ("m", "3", "s")
    return b"answer"


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "cnnkit.server.access")
    return lambda: [one.request for one in caplog.records if hasattr(one, "request")]


def test_a_call_that_is_answered(lines):
    answer, labels, read = called(answering, access_log=True)
    assert (answer, read) == (b"answer", [1])
    assert labels == ["Predict", "m", "3", "s", "OK"]
    [line] = lines()
    assert (line["model"], line["version"], line["signature"]) == ("m", "3", "s")
    assert (line["request_bytes"], line["response_bytes"]) == (7, 6)
    assert called(answering)[1] == labels and len(lines()) == 1


def test_a_call_that_is_refused_before_its_message_is_read(lines):
    def refuse():
        raise StatusError(grpc.StatusCode.PERMISSION_DENIED, "no")

    for options in ({"authorize": refuse}, {"clients": ClientCertificates(["lab"])}):
        answer, labels, read = called(answering, access_log=True, **options)
        code = "PERMISSION_DENIED" if "authorize" in options else "UNAUTHENTICATED"
        assert (answer.code.name, labels, read) == (code, ["Predict", "", "", "", code], [])
    assert [(one["request_bytes"], one["response_bytes"]) for one in lines()] == [(0, 0)] * 2


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (StatusError(grpc.StatusCode.NOT_FOUND, "no such model"), "NOT_FOUND", "no such model"),
        (DecodeError("bad"), "INTERNAL", ""),
        (KeyError("secret"), "INTERNAL", "KeyError; see the server's log of request r-7"),
    ],
)
def test_errors_become_a_status(error, code, text, caplog, lines):
    async def fail(request, calls):
        request.model_name = "asked"
        raise error

    answer, labels, _ = called(fail, access_log=True)
    assert (answer.code.name, answer.details) == (code, text)
    assert labels == ["Predict", "", "", "", code]
    [line] = lines()
    # The name of a model that was not found is told, and nothing of an answer.
    assert (line["model"], line["code"], line["response_bytes"]) == ("asked", code, 0)
    logged = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert logged == (["An error of the server in request r-7"] if "KeyError" in text else [])


def test_a_call_without_an_id():
    with futures.ThreadPoolExecutor(1) as threads:
        calls = CallHandler(ServerLimits(), threads)
        with (
            pytest.raises(StatusError, match="^KeyError; see the server's log of a request$"),
            calls.errors_as_status(),
        ):
            raise KeyError


def test_calls_that_are_canceled_by_a_client_and_by_a_stop():
    async def leave(request, calls):
        raise asyncio.CancelledError

    async def stop(request, calls):
        calls.limiter.end()
        await asyncio.sleep(10)

    answer, labels, _ = called(leave)
    assert isinstance(answer, asyncio.CancelledError) and labels[4] == "CANCELLED"
    answer, labels, _ = called(stop)
    assert (answer.code.name, answer.details) == ("UNAVAILABLE", STOPPED)
    assert labels[4] == "UNAVAILABLE"

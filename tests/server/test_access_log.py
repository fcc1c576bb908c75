"""Request ids go round, and each request leaves one line."""

import http.client
import json
import logging

import grpc
import numpy as np
import pytest

from cnnkit.cli.console import LogFormatter
from cnnkit.cli.serve.logs import JsonFormatter
from cnnkit.server import EmbeddedServer
from cnnkit.server.access_log import log_request, request_id
from cnnkit.wire import methods
from tests.helpers.busy_server import predict_request
from tests.helpers.serving import GRAY

pytest.importorskip("aiohttp")

PREDICT = "/v1/models/colors:predict"


@pytest.fixture(scope="module")
def server(colors_folder):
    with EmbeddedServer({"colors": colors_folder}, access_log=True, rest_port=0) as started:
        yield started


@pytest.fixture
def lines(caplog):
    """The records of the access log; taken, they are removed."""
    caplog.set_level(logging.INFO, "cnnkit.server.access")

    def take():
        found = [one for one in caplog.records if one.name == "cnnkit.server.access"]
        caplog.clear()
        return found

    return take


def grpc_call(server, request, metadata=(), method=methods.PREDICT):
    """Returns the name of the status code, the trailing metadata, and the bytes of the answer."""
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(method)
        try:
            raw, ended = call.with_call(request.SerializeToString(), timeout=30, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name, dict(error.trailing_metadata()), b""
        return "OK", dict(ended.trailing_metadata()), raw


def rest_call(server, path, body=None, headers=()):
    connection = http.client.HTTPConnection(server.rest_address, timeout=30)
    try:
        verb = "GET" if body is None else "POST"
        connection.request(verb, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.getheader("X-Request-Id"), answer.read()
    finally:
        connection.close()


# RFC 9110: a header field is one line; a new id is 8 random bytes.
@pytest.mark.parametrize(
    "given",
    ["", "-begins-with-a-dash", "two words", "line\nbreak", "x" * 129, "caf\u00e9", b"bytes", None],
)
def test_other_ids_are_replaced(given):
    made = request_id(given)
    assert len(bytes.fromhex(made)) == 8
    assert made != request_id(given)


@pytest.mark.parametrize("given", ["a", "X" * 128, "urn:uuid:7f0c/2+b=_.@9"])
def test_well_formed_ids_are_kept(given):
    assert request_id(given) == given


def test_the_id_comes_back_from_grpc(server, lines):
    given = [("x-request-id", "order-7")]
    code, trailing, raw = grpc_call(server, predict_request(), given)
    assert (code, trailing["x-request-id"]) == ("OK", "order-7")
    (record,) = lines()
    found = dict(record.request)
    assert 0 < found.pop("milliseconds") < 60_000
    assert found == {
        "method": "Predict",
        "model": "colors",
        "version": "2",
        "signature": "serving_default",
        "code": "OK",
        "request_bytes": len(predict_request().SerializeToString()),
        "response_bytes": len(raw),
        "request_id": "order-7",
    }
    code, trailing, _ = grpc_call(server, predict_request(np.zeros((1, 2), np.float32)), given)
    assert (code, trailing["x-request-id"]) == ("INVALID_ARGUMENT", "order-7")
    _, trailing, _ = grpc_call(server, predict_request(), [("x-request-id", "two words")])
    assert len(trailing["x-request-id"]) == 16
    assert [one.request["request_id"] for one in lines()] == ["order-7", trailing["x-request-id"]]


def test_the_id_comes_back_from_rest(server, lines):
    body = json.dumps({"instances": GRAY.tolist()}).encode()
    status, found, answer = rest_call(server, PREDICT, body, {"X-Request-Id": "order-8"})
    assert (status, found) == (200, "order-8")
    (record,) = lines()
    fields = record.request
    assert (fields["method"], fields["code"], fields["signature"]) == (
        "REST Predict",
        "OK",
        "serving_default",
    )
    assert (fields["request_bytes"], fields["response_bytes"]) == (len(body), len(answer))
    status, found, _ = rest_call(server, PREDICT, b"{", {"X-Request-Id": "order-9"})
    assert (status, found) == (400, "order-9")
    assert rest_call(server, "/v1/health/live", headers={"X-Request-Id": "p"})[:2] == (200, "p")
    # No line for a probe.
    assert [one.request["request_id"] for one in lines()] == ["order-9"]
    assert len(rest_call(server, "/v1/other")[1]) == 16
    (record,) = lines()
    assert (record.request["method"], record.request["code"]) == ("REST", "INVALID_ARGUMENT")


def test_one_line_whatever_a_client_names(server, lines):
    request = predict_request()
    request.model_spec.name = 'no "such"\nmodel\x1b[2J'
    assert grpc_call(server, request, [("x-request-id", "r")])[0] == "NOT_FOUND"
    (record,) = lines()
    line = LogFormatter("%(message)s").format(record)
    assert line.startswith('method=Predict model="no \\"such\\"\\\\nmodel\\\\x1b[2J" version="" ')
    assert line.endswith("request_bytes=828 response_bytes=0 request_id=r") and "\n" not in line
    found = json.loads(JsonFormatter().format(record))
    assert found["model"] == 'no "such"\\nmodel\\x1b[2J'
    assert (found["level"], found["logger"]) == ("INFO", "cnnkit.server.access")
    assert found["time"].endswith("+00:00") and "message" not in found


def test_a_failure_is_found_by_its_id(server, monkeypatch, caplog):
    def broken(spec):
        raise KeyError("oops")

    monkeypatch.setattr(server.repository, "find", broken)
    _, found, answer = rest_call(server, PREDICT, b'{"instances": [1]}', {"X-Request-Id": "r-1"})
    assert found == "r-1"
    assert json.loads(answer) == {"error": "KeyError; see the server's log of request r-1"}
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    document = json.loads(JsonFormatter().format(record))
    assert document["message"] == "An error of the server in request r-1"
    assert document["exception"].endswith("KeyError: 'oops'")


def test_the_time_is_in_milliseconds(lines):
    log_request(
        method="Predict",
        model="m" * 501,
        version="",
        signature="a=b",
        code="OK",
        seconds=0.0123456,
        request_bytes=3,
        response_bytes=4,
        request_id="r",
    )
    (record,) = lines()
    assert record.request["milliseconds"] == 12.346
    assert record.request["model"] == "m" * 500 + "... (501 characters)"
    assert record.getMessage().endswith(
        'version="" signature="a=b" code=OK milliseconds=12.346 request_bytes=3 response_bytes=4 '
        "request_id=r"
    )


def test_no_line_unless_asked(colors_server, lines):
    assert grpc_call(colors_server, predict_request())[0] == "OK"
    assert lines() == []

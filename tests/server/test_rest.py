"""The REST API: documented answers of TensorFlow Serving, the same numbers as gRPC, its limits."""

import base64
import contextlib
import gc
import http.client
import importlib.util
import json
import logging
import resource
import socket
import sys
import threading
import time
import zlib
from types import SimpleNamespace, TracebackType

import grpc
import numpy as np
import pytest

from cnnkit.client import Client
from cnnkit.errors import RunError, UsageError
from cnnkit.server import EmbeddedServer, ServerLimits, ServerMetrics, rest
from cnnkit.server.status_error import StatusError
from tests.helpers.serving import GRAY, SIZE, check_gray, expected_probabilities

pytest.importorskip("aiohttp")

MODEL = "/v1/models/colors"
IMAGES = GRAY * np.float32([[[[1, 2, 3]]]])


def send(server, path, body=None, headers=(), method=None):
    """Returns the status code and the document that answer a request."""
    connection = http.client.HTTPConnection(server.rest_address, timeout=30)
    try:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        verb = method or ("GET" if raw is None else "POST")
        connection.request(verb, path, raw, dict(headers))
        answer = connection.getresponse()
        assert answer.getheader("Content-Type").startswith("application/json")
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def predict(server, body, place=MODEL):
    return send(server, f"{place}:predict", body)


def error_of(server, body, path=f"{MODEL}:predict", **more):
    status, answer = send(server, path, body, **more)
    assert list(answer) == ["error"]
    return status, answer["error"]


@pytest.fixture(scope="module")
def metrics():
    return ServerMetrics()


@pytest.fixture(scope="module")
def server(colors_folder, metrics):
    with EmbeddedServer(
        {"colors": colors_folder, "a b": colors_folder},
        versions="all",
        version_labels={"colors": {"stable": 1}},
        limits=ServerLimits(max_request_rows=8, max_request_bytes=2**20, max_memory_bytes=2**25),
        metrics=metrics,
        rest_port=0,
    ) as started:
        yield started


def test_status_as_documented(server):
    def version(number):
        status = {"error_code": "OK", "error_message": ""}
        return {"version": number, "state": "AVAILABLE", "status": status}

    assert send(server, MODEL) == (200, {"model_version_status": [version("2"), version("1")]})
    assert send(server, f"{MODEL}/versions/1") == (200, {"model_version_status": [version("1")]})
    assert send(server, "/v1/models/a%20b/versions/2?x=1")[0] == 200


def test_metadata_as_documented(server):
    status, found = send(server, f"{MODEL}/labels/stable/metadata")
    assert status == 200
    assert found["model_spec"] == {"name": "colors", "version": "1", "signature_name": ""}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    images = signature["inputs"]["images"]
    assert images["dtype"] == "DT_FLOAT"
    assert [one["size"] for one in images["tensor_shape"]["dim"]] == ["-1", "8", "8", "3"]
    assert images["tensor_shape"]["unknown_rank"] is False
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_rows_and_columns_give_what_grpc_gives(server):
    images = np.concatenate([IMAGES, GRAY])
    with Client(server.address) as client:
        expected = client.predict(images, model="colors")
    rows = predict(server, {"instances": images.tolist()})[1]["predictions"]
    assert sorted(rows[0]) == ["means", "probabilities"]
    columns = predict(server, {"inputs": {"images": images.tolist()}})[1]["outputs"]
    named = predict(server, {"instances": [{"images": one} for one in images.tolist()]})
    assert named == (200, {"predictions": rows})
    assert predict(server, {"inputs": images.tolist()})[1]["outputs"] == columns
    for name, values in expected.items():
        np.testing.assert_array_equal(np.float32(columns[name]), values)
        np.testing.assert_array_equal(np.float32([row[name] for row in rows]), values)
    check_gray(np.float32(columns["probabilities"][1:]))
    # Digits of float32, not of the float64 that is nearest to it.
    assert all(len(repr(value)) <= 13 for value in columns["probabilities"][0])


def test_version_and_label_in_the_path(server):
    for place, scale in (("versions/1", 32), ("labels/stable", 32), ("versions/2", 64)):
        found = predict(server, {"instances": IMAGES.tolist()}, f"{MODEL}/{place}")
        np.testing.assert_allclose(
            found[1]["predictions"][0]["probabilities"],
            expected_probabilities(IMAGES, scale)[0],
            atol=1e-6,
        )


def test_image_files_in_base64(server, png):
    file = {"b64": base64.b64encode(png(40, 40, 40)).decode()}
    document = {"signature_name": "classify_bytes", "instances": [file, {"image_bytes": file}]}
    found = predict(server, {**document, "instances": [file, file]})[1]["predictions"]
    assert [len(row["labels"]) for row in found] == [3, 3]
    assert set(found[0]["labels"]) <= {"red", "green", "blue", "dark"}
    document["instances"] = [{"image_bytes": file}]
    assert predict(server, document)[1]["predictions"] == found[:1]
    single = predict(server, {"signature_name": "serving_bytes", "inputs": [file]})[1]
    # One output has no name.
    np.testing.assert_allclose(single["outputs"], expected_probabilities(GRAY, 64), atol=1e-6)


def test_several_inputs(server):
    document = {"signature_name": "two_inputs", "instances": [{"a": 1.5, "b": 2}, {"a": 1, "b": 3}]}
    assert predict(server, document) == (200, {"predictions": [3.5, 4.0]})
    document = {"signature_name": "two_inputs", "inputs": {"a": [1.5, float("inf")], "b": [2, 3]}}
    status, found = predict(server, document)
    assert (status, found) == (200, {"outputs": [3.5, float("inf")]})


# Code and beginning of the text; those with a star are of TensorFlow Serving's sources.
WRONG_REQUESTS = {
    "not JSON": (b"{", 400, "JSON Parse error: "),
    "empty *": (b"", 400, "JSON Parse error: The document is empty"),
    "no object *": (b"[1]", 400, "JSON Value: [1] Is not object"),
    "not UTF-8": (b'{"instances": "\xff"}', 400, "JSON Parse error: "),
    "deep": (b'{"instances": ' + b"[" * 200, 400, "JSON Parse error: "),
    "name twice": (b'{"inputs": [1], "inputs": [2]}', 400, "JSON Parse error: "),
    "1e400": (b'{"instances": [1e400]}', 400, "JSON Parse error: "),
    "5000 digits": (b'{"instances": [%s]}' % (b"9" * 5000), 400, "JSON Parse error: "),
    "no values *": ({"instances": []}, 400, "JSON Value: [] No values in 'instances' array"),
    "no inputs *": ({}, 400, "Missing 'inputs' or 'instances' key"),
    "both *": ({"instances": [1], "inputs": [1]}, 400, "JSON Value: "),
    "no list *": ({"instances": 1}, 400, "JSON Value: 1 Excepting 'instances' to be an list/array"),
    "signature *": (
        {"signature_name": "q", "instances": [1]},
        400,
        'Serving signature name: "q" not found in signature def',
    ),
    "signature 1": ({"signature_name": 1}, 400, 'JSON Value: {"signature_name": 1} not formatted'),
    "other name": ({"instances": [{"k": 1}]}, 400, "Failed to process element: 0 of 'instances'"),
    "missing name *": ({"inputs": {"k": 1}}, 400, "Missing named input: images in 'inputs' object"),
    "mixed *": ({"instances": [{"images": 1}, 2]}, 400, "Expecting object but got list at item 1"),
    "mixed 2 *": ({"instances": [1, {"images": 2}]}, 400, "Expecting value/list but got object"),
    "text *": (
        {"instances": ["a"]},
        400,
        'JSON Value: "a" Type: String is not of expected type: float',
    ),
    "true": ({"instances": [True]}, 400, "JSON Value: true Type: True is not of expected type"),
    "null": ({"instances": [None]}, 400, "JSON Value: null Type: Null is not of expected type"),
    "ragged": ({"instances": [[1], [1, 2]]}, 400, "JSON Value: [1, 2] of input images must be"),
    "large *": ({"instances": [1e39]}, 400, "Cannot convert JSON value: 1e+39 to float32 without"),
    "exact *": ({"instances": [2**24 + 1]}, 400, "Cannot convert JSON value: 16777217 to float32"),
    "shape *": ({"instances": [[1]]}, 400, "Shape of tensor images [1,1] is not compatible"),
    "rows *": (
        {"instances": [GRAY[0].tolist()] * 9},
        400,
        "Task size 9 is larger than maximum input batch size 8",
    ),
    "integer": (
        {"signature_name": "two_inputs", "inputs": {"a": [1], "b": [2**63]}},
        400,
        "JSON Value: 9223372036854775808 Type: Number is not of expected type: int64",
    ),
    "whole *": (
        {"signature_name": "two_inputs", "inputs": {"a": [1], "b": [1.5]}},
        400,
        "JSON Value: 1.5 Type: Number is not of expected type: int64",
    ),
    "plain *": ({"signature_name": "two_inputs", "instances": [1]}, 400, "instances is a plain"),
    "plain 2 *": ({"signature_name": "two_inputs", "inputs": [1]}, 400, "inputs is a plain value"),
    "base64 *": (
        {"signature_name": "serving_bytes", "instances": [{"b64": "*"}]},
        400,
        "Unable to base64 decode",
    ),
    "half a pair *": (
        b'{"signature_name": "serving_bytes", "instances": ["\\ud83d\\u0041"]}',
        400,
        "JSON Parse error: The surrogate pair in string is invalid.",
    ),
    "half a pair in a name": (
        b'{"signature_name": "\\udC00"}',
        400,
        "JSON Parse error: The surrogate pair in string is invalid.",
    ),
    "half a pair in another name": (
        b'{"inputs": {"\\\\\\uDBFF": [1]}}',
        400,
        "JSON Parse error: The surrogate pair in string is invalid.",
    ),
    "a pair": (
        b'{"signature_name": "\\ud83d\\uDE00\\\\ud800", "inputs": [1]}',
        400,
        'Serving signature name: "\U0001f600\\ud800" not found in signature def',
    ),
    "no image *": (
        {"signature_name": "serving_bytes", "instances": ["no image"]},
        400,
        "Unknown image file format",
    ),
}


@pytest.mark.parametrize("case", WRONG_REQUESTS)
def test_wrong_requests(server, case):
    body, code, text = WRONG_REQUESTS[case]
    status, found = error_of(server, body)
    assert (status, found[: len(text)]) == (code, text)


# TensorFlow Serving's texts.
WRONG_PATHS = {
    "POST /v1/models/nope:predict": (404, "Servable not found for request: Latest(nope)"),
    "POST /v1/models/colors/versions/9:predict": (
        404,
        "Servable not found for request: Specific(colors, 9)",
    ),
    "POST /v1/models/colors/labels/canary:predict": (
        400,
        "Unrecognized servable version label: canary",
    ),
    f"POST /v1/models/colors/versions/{'9' * 5000}:predict": (
        400,
        "Failed to convert version: 9999",
    ),
    "POST /v1/models/colors:classify": (400, "No classification inputs found in SignatureDef: "),
    "POST /v1/models/colors:regress": (400, "No regression inputs found in SignatureDef: "),
    "POST /v1/models/colors": (400, "Malformed request: POST /v1/models/colors"),
    "GET /v1/models/colors:predict": (400, "Malformed request: GET /v1/models/colors:predict"),
    "GET /v1/models/nope": (404, "Could not find any versions of model nope"),
    "GET /v1/models/colors/versions/7": (404, "Could not find version 7 of model colors"),
    "GET /v1/models": (400, "Missing model name in request."),
    "GET /": (404, "Not found: /"),
}


@pytest.mark.parametrize("call", WRONG_PATHS)
def test_wrong_paths(server, call):
    method, path = call.split(" ")
    body = {"instances": [1]} if method == "POST" else None
    code, text = WRONG_PATHS[call]
    status, found = error_of(server, body, path, method=method)
    assert (status, found[: len(text)]) == (code, text)


def test_requests_within_the_limits_of_grpc(server):
    """A body is refused by its size, also unpacked, and by the memory that its JSON would take."""
    assert error_of(server, b" " * 2**20)[0] == 400
    assert error_of(server, b" " * (2**20 + 1)) == (
        413,
        "Received message larger than max (1048577 vs. 1048576)",
    )
    packed = zlib.compress(b" " * (2**20 + 1))
    assert error_of(server, packed, headers={"Content-Encoding": "deflate"})[0] == 413
    assert error_of(server, packed[:9], headers={"Content-Encoding": "deflate"})[0] == 400
    # 1 MB of JSON, 24 MB as Python objects, more than the rest of the memory.
    objects = b'{"instances": [' + b"{}," * 300_000 + b"{}]}"
    assert error_of(server, objects) == (429, "Server memory for requests is full")
    assert predict(server, {"instances": GRAY.tolist()})[0] == 200
    document = zlib.compress(json.dumps({"instances": GRAY.tolist()}).encode())
    found = send(server, f"{MODEL}:predict", document, {"Content-Encoding": "deflate"})
    assert found[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB")
def test_a_bomb_is_unpacked_by_nobody_but_the_reader_that_counts(server):
    """The HTTP server hands the body over as it was sent: see `auto_decompress`."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()
    assert len(bomb) < 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = error_of(server, bomb, headers={"Content-Encoding": "gzip"})
    assert found == (413, "Decompressed message larger than max (1048576)")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 2**10


@pytest.mark.parametrize(
    ("header", "begun"),
    [
        (f"Content-Length: {2**21}", b""),
        ("Transfer-Encoding: chunked", b"200000\r\n" + b" " * 2**21 + b"\r\n"),
    ],
)
def test_a_body_that_is_too_large_is_refused_before_its_end(server, header, begun):
    host, port = server.rest_address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n"
        connection.sendall(head.encode() + begun)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_requests_are_counted(server, metrics):
    def count(code, method="REST Predict"):
        labels = {"method": method, "model": "colors", "version": "2", "code": code}
        labels["signature"] = "serving_default" if code == "OK" else ""
        return metrics.registry.get_sample_value("cnnkit_requests_total", labels) or 0

    before = count("OK"), count("INVALID_ARGUMENT")
    predict(server, {"instances": GRAY.tolist()})
    predict(server, {"instances": ["a"]})
    assert (count("OK"), count("INVALID_ARGUMENT")) == (before[0] + 1, before[1] + 1)


def test_refused_requests_leave_no_errors_for_the_garbage_collector(server):
    send(server, MODEL)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for path in (f"{MODEL}:predict", "/v1/other"):
            for _ in range(5):
                assert error_of(server, {"instances": ["a"]}, path)[0] == 400
        gc.collect()
        left = [one for one in gc.garbage if isinstance(one, (BaseException, TracebackType))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left


def test_health(server, monkeypatch):
    assert send(server, "/v1/health/live") == (200, {"status": "live"})
    assert send(server, "/v1/health/ready") == (200, {"status": "ready"})
    assert error_of(server, None, "/v1/health/other") == (404, "Not found: /v1/health/other")
    monkeypatch.setattr(server.repository, "versions", lambda name: [])
    assert error_of(server, None, "/v1/health/ready") == (503, "A model has no version to call")


def test_malformed_http_is_refused_and_not_logged(server, caplog):
    host, port = server.rest_address.split(":")
    for raw in (
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000,
        b"GET / HTTP/9\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(raw)
            assert b" 400 " in connection.recv(100)
    assert not caplog.records


def test_silent_connections_are_closed(colors_folder):
    limits = ServerLimits(receive_timeout_seconds=1)
    with EmbeddedServer({"colors": colors_folder}, limits=limits, rest_port=0) as server:
        host, port = server.rest_address.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"GET /v1/models/colors HTTP/1.1\r\nHost: ")
            assert connection.recv(1) == b""
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
            connection.sendall(head.encode() + b"{")
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_connection_with_short_requests_stays_open(colors_folder):
    """It has no request at nearly every look at the silent connections."""
    limits = ServerLimits(receive_timeout_seconds=1)
    with EmbeddedServer({"colors": colors_folder}, limits=limits, rest_port=0) as server:
        connection = http.client.HTTPConnection(server.rest_address, timeout=30)
        connection.connect()
        opened, limit = connection.sock, time.monotonic() + 4
        while time.monotonic() < limit:
            connection.request("GET", MODEL)
            assert connection.getresponse().read()
            time.sleep(0.05)
        assert connection.sock is opened
        connection.close()


def test_a_server_that_stops_finishes_what_it_began(model_folder, gate):
    found = []
    limits = ServerLimits(threads=1)
    with EmbeddedServer(
        {"colors": model_folder}, load=gate.load, limits=limits, rest_port=0
    ) as server:
        address = server.rest_address
        calls = [
            threading.Thread(
                target=lambda: found.append(predict(server, {"instances": GRAY.tolist()}))
            )
        ]
        calls[0].start()
        assert gate.arrived.acquire(timeout=30)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        while send(server, "/v1/health/ready")[0] == 200:
            pass
        assert error_of(server, None, "/v1/health/ready") == (503, "The server is stopping")
        assert error_of(server, None, MODEL) == (503, "The server is stopping")
        gate.open.set()
        for thread in (*calls, stopping):
            thread.join()
    assert [status for status, _ in found] == [200]
    host, port = address.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_the_end_of_the_grace_is_told(model_folder, gate):
    found = []
    with EmbeddedServer({"colors": model_folder}, load=gate.load, rest_port=0) as server:
        call = threading.Thread(
            target=lambda: found.append(error_of(server, {"instances": GRAY.tolist()}))
        )
        call.start()
        assert gate.arrived.acquire(timeout=30)
        server.stop(grace=0.2)
        call.join()
    assert found == [(503, "The server stopped during the call")]


def test_wrong_ports(colors_folder, monkeypatch):
    models = {"colors": colors_folder}
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(RunError, match="cannot listen on port"),
    ):
        EmbeddedServer(models, rest_port=taken.getsockname()[1])
    with pytest.raises(UsageError, match="`rest_port` must be in"):
        EmbeddedServer(models, rest_port=65536)
    with pytest.raises(UsageError, match="must be another port"):
        EmbeddedServer(models, port=4000, rest_port=4000)
    with pytest.raises(UsageError, match="`rest_tls` must be given"):
        EmbeddedServer(models, rest_port=0, credentials=object())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install aiohttp"):
        EmbeddedServer(models, rest_port=0)


def test_images_of_another_size_are_refused(server):
    image = np.zeros((1, SIZE + 1, SIZE, 3)).tolist()
    assert error_of(server, {"instances": image}) == (
        400,
        "Shape of tensor images [1,9,8,3] is not compatible with expected shape [?,8,8,3].",
    )


# As TensorFlow Serving's http_server.cc has them.
CODES = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


def test_the_status_of_each_code(server, monkeypatch):
    for name, status in CODES.items():

        def fail(spec, name=name):
            raise StatusError(grpc.StatusCode[name], f"It is {name}")

        monkeypatch.setattr(server.repository, "find", fail)
        assert error_of(server, None, f"{MODEL}/metadata") == (status, f"It is {name}")


def test_versions_and_labels_in_a_path():
    def spec(path):
        return rest._model_spec(rest._MODEL_STATUS.fullmatch(path))

    for text, number in (("7", 7), ("007", 7), ("0", 0), ("00", 0), (str(2**63 - 1), 2**63 - 1)):
        found = spec(f"/v1/models/m/versions/{text}")
        assert (found.name, found.version.value) == ("m", number)
        assert found.WhichOneof("version_choice") == "version"
    for text in (str(2**63), "1" + "0" * 19, "0" + "9" * 20):
        with pytest.raises(StatusError, match=f"^Failed to convert version: {text} to numeric.$"):
            spec(f"/v1/models/m/versions/{text}")
    found = spec("/V1/Models/a%20%C3%A9/Labels/b%ff")
    assert (found.name, found.version_label) == ("a \u00e9", "b\ufffd")
    assert spec("/v1/models/m").WhichOneof("version_choice") is None


@pytest.mark.parametrize(
    ("place", "peer"),
    [
        (("10.0.0.7", 41234), "ipv4:10.0.0.7:41234"),
        (("::1", 41234, 0, 0), "ipv6:[::1]:41234"),
        (("fe80::1%eth0", 1, 0, 2), "ipv6:[fe80::1%25eth0]:1"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_address_of_a_client_as_grpc_names_it(place, peer):
    transport = SimpleNamespace(get_extra_info={"peername": place}.__getitem__)
    assert rest._peer(SimpleNamespace(transport=transport)) == peer
    assert rest._peer(SimpleNamespace(transport=None)) == "unknown"


def test_a_client_without_a_certificate_has_no_identity():
    tls = SimpleNamespace(getpeercert=lambda binary_form=False: None)
    for transport in (
        None,
        SimpleNamespace(get_extra_info=lambda name: None),
        SimpleNamespace(get_extra_info={"ssl_object": tls}.__getitem__),
    ):
        assert rest._identity(SimpleNamespace(transport=transport)) == {}


def test_connections_are_closed_when_nothing_arrives_for_a_minute(model_folder, gate, monkeypatch):
    """Not before, and not while a graph runs."""
    clock = SimpleNamespace(now=0.0, looks=0)

    def monotonic():
        clock.looks += 1
        return clock.now

    def advance(seconds):
        clock.now += seconds
        # A look that begins later.
        before = clock.looks
        while clock.looks < before + 2:
            time.sleep(0.001)

    monkeypatch.setattr(rest, "_SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(rest, "time", SimpleNamespace(monotonic=monotonic))
    with EmbeddedServer({"colors": model_folder}, load=gate.load, rest_port=0) as server:
        connection = http.client.HTTPConnection(server.rest_address, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", MODEL)
            assert connection.getresponse().read()
            own = connection.sock
            advance(0)
            advance(60)
            connection.request("POST", f"{MODEL}:predict", json.dumps({"instances": GRAY.tolist()}))
            assert gate.arrived.acquire(timeout=30)
            advance(1000)
            gate.open.set()
            answer = connection.getresponse()
            assert answer.status == 200 and answer.read()
            advance(0)
            advance(60)
            connection.request("GET", MODEL)
            assert connection.getresponse().read()
            advance(0)
            assert connection.sock is own
            advance(60.5)
            assert own.recv(1) == b""


def test_a_client_that_is_gone_is_not_computed_for(model_folder, gate):
    limits = ServerLimits(threads=1)
    with EmbeddedServer(
        {"colors": model_folder}, load=gate.load, limits=limits, rest_port=0
    ) as server:
        host, port = server.rest_address.split(":")
        body = json.dumps({"instances": GRAY.tolist()})
        head = f"POST {MODEL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall((head + body).encode())
            assert gate.arrived.acquire(timeout=30)
        assert gate.canceled.acquire(timeout=30)
        gate.open.set()


def test_a_stopping_server_closes_each_connection_after_its_answer(server):
    def answer():
        connection = http.client.HTTPConnection(server.rest_address, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/health/live")
            found = connection.getresponse()
            return found.status, found.getheader("Connection"), found.getheader("Server")

    assert answer() == (200, None, "cnnkit")
    server._rest._stopping = True
    try:
        assert answer() == (200, "close", "cnnkit")
    finally:
        server._rest._stopping = False


def test_a_server_that_was_never_started_ends(colors_folder, caplog):
    server = EmbeddedServer({"colors": colors_folder}, rest_port=0)
    server.stop()
    with EmbeddedServer({"colors": colors_folder}, rest_port=0) as server:
        caplog.set_level(logging.INFO)
        assert send(server, MODEL)[0] == 200
    assert server._rest._sweeper.done()
    # A line for each request is what `access_log` asks for.
    assert not [one for one in caplog.records if one.name.startswith("aiohttp")]

"""The protocol's REST API: documented answers, JSON, binary tensors, and hostile bodies."""

import http.client
import json

import numpy as np
import pytest

from cnnkit.server.open_inference.rest import InferenceRest, _header_length
from cnnkit.server.status_error import StatusError
from tests.server.open_inference.conftest import IMAGES

MODEL = "/v2/models/colors"
LENGTH = "Inference-Header-Content-Length"


def send(server, path, body=None, headers=()):
    """Returns the status code, the headers and the body of an answer."""
    connection = http.client.HTTPConnection(server.rest_address, timeout=30)
    try:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request("GET" if raw is None else "POST", path, raw, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def document(server, path, body=None, headers=()):
    status, found, raw = send(server, path, body, headers)
    assert found["Content-Type"].startswith("application/json") and found[LENGTH] is None
    return status, json.loads(raw)


def infer(server, body, place=MODEL, **headers):
    return document(server, f"{place}/infer", body, headers)


def tensor(**changes):
    return {
        "name": "images",
        "datatype": "FP32",
        "shape": list(IMAGES.shape),
        "data": IMAGES.reshape(-1).tolist(),
    } | changes


def test_what_is_documented(server):
    assert document(server, "/v2/health/live") == (200, {"live": True})
    assert document(server, "/v2/health/ready") == (200, {"ready": True})
    assert document(server, f"{MODEL}/ready") == (200, {"name": "colors", "ready": True})
    assert document(server, "/v2")[1]["extensions"] == ["binary_tensor_data"]
    status, found = document(server, f"{MODEL}:two_inputs/versions/2")
    assert status == 200
    assert found == {
        "name": "colors:two_inputs",
        "versions": ["1", "2"],
        "platform": "tensorflow_savedmodel",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [-1]},
            {"name": "b", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [{"name": "sum", "datatype": "FP32", "shape": [-1]}],
    }


def test_flat_and_nested_data(server, predicted):
    expected = predicted("serving_default")
    for data in (IMAGES.tolist(), IMAGES.reshape(-1).tolist()):
        body = {"id": "42", "inputs": [tensor(data=data)], "outputs": [{"name": "probabilities"}]}
        status, found = infer(server, body)
        (output,) = found.pop("outputs")
        assert (status, found) == (
            200,
            {"model_name": "colors", "model_version": "2", "id": "42"},
        )
        assert (output["name"], output["datatype"], output["shape"]) == (
            "probabilities",
            "FP32",
            [2, 4],
        )
        assert np.float32(output["data"]).tobytes() == expected["probabilities"].tobytes()


def test_binary_tensors_in_and_out(server, predicted):
    raw = IMAGES.tobytes()
    given = tensor(parameters={"binary_data_size": len(raw)})
    del given["data"]
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "means"}]
    text = json.dumps({"inputs": [given], "outputs": outputs}).encode()
    status, headers, body = send(server, f"{MODEL}/infer", text + raw, {LENGTH: str(len(text))})
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    size = int(headers[LENGTH])
    first, second = json.loads(body[:size])["outputs"]
    expected = predicted("serving_default")
    assert first["parameters"] == {"binary_data_size": len(body) - size}
    assert body[size:] == expected["probabilities"].tobytes()
    assert np.float32(second["data"]).tobytes() == expected["means"].tobytes()


# Body, headers and the beginning of the text.
WRONG = {
    "not JSON": (b"{", {}, "JSON Parse error: "),
    "no inputs": ({}, {}, "input size does not match signature"),
    "inputs": ({"inputs": {}}, {}, "`inputs` must be a list of objects"),
    "id": ({"id": 1, "inputs": [tensor()]}, {}, "`id` must be a text"),
    "no name": ({"inputs": [{}]}, {}, "`name` must be a text"),
    "no shape": ({"inputs": [tensor(shape=None)]}, {}, "Input images must have a list of numbers"),
    "true": ({"inputs": [tensor(shape=[True])]}, {}, "Input images must have a list of numbers"),
    "negative": ({"inputs": [tensor(shape=[-1])]}, {}, "`shape` of input images must have at most"),
    "large": ({"inputs": [tensor(shape=[2**70])]}, {}, "`shape` of input images must have at most"),
    "few": ({"inputs": [tensor(data=[1])]}, {}, "Input images must have 384 elements for its"),
    "no data": ({"inputs": [tensor(data=None)]}, {}, "Input images must have a list `data`"),
    "other shape": (
        {"inputs": [tensor(data=IMAGES.reshape(2, 192).tolist())]},
        {},
        "`data` of input images must be flat or have the shape [2, 8, 8, 3], received [2, 192]",
    ),
    "text": (
        {"inputs": [tensor(data=["a"] * 384)]},
        {},
        'JSON Value: "a" Type: String is not of expected type: float32',
    ),
    "256": (
        {"inputs": [tensor(datatype="UINT8", data=[256], shape=[1])]},
        {},
        "JSON Value: 256 Type: Number is not of expected type: uint8",
    ),
    "64": ({"inputs": [tensor(data=[])] * 65}, {}, "`inputs` must hold 64 tensors at most"),
    "header": ({"inputs": []}, {LENGTH: "99"}, f"The header {LENGTH} must be the bytes of the"),
    "header 2": ({"inputs": []}, {LENGTH: "-1"}, f"The header {LENGTH} must be the bytes of the"),
    "too short": (b'{"inputs": []}', {LENGTH: "3"}, "JSON Parse error: "),
    "left": (b'{"inputs": []}ab', {LENGTH: "14"}, "The body has 2 bytes that belong to no input"),
    "size": (
        {"inputs": [tensor(parameters={"binary_data_size": 1})]},
        {},
        "Input images must have `data` or a `binary_data_size` within the 0 bytes",
    ),
    "classes": (
        {"inputs": [], "outputs": [{"name": "a", "parameters": {"classification": 1}}]},
        {},
        "The parameter classification of output a is not supported",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_bodies(server, case):
    body, headers, text = WRONG[case]
    status, found = infer(server, body, **headers)
    assert list(found) == ["error"]
    assert (status, found["error"][: len(text)]) == (400, text)


def test_wrong_paths(server):
    for path, status, text in (
        ("/v2/models/nope", 404, "Servable not found for request: Latest(nope)"),
        (f"{MODEL}/versions/9/ready", 404, "Servable not found for request: Specific(colors, 9)"),
        (f"{MODEL}:nope/ready", 404, "Model colors has no signature nope; name one of colors:"),
        (f"{MODEL}/infer", 400, "Malformed request: GET /v2/models/colors/infer"),
        (f"{MODEL}/versions/{'9' * 5000}", 400, "Failed to convert version: 9999"),
        ("/v2/repository/index", 400, "Malformed request: GET /v2/repository/index"),
        ("/v2/health/other", 404, "Not found: /v2/health/other"),
    ):
        code, found = document(server, path)
        assert (code, found["error"][: len(text)]) == (status, text)


def test_the_limits_are_those_of_every_api(server):
    assert document(server, f"{MODEL}/infer", b" " * (2**20 + 1))[0] == 413
    objects = b'{"inputs": [' + b"{}," * 300_000 + b"{}]}"
    assert infer(server, objects) == (429, {"error": "Server memory for requests is full"})


@pytest.mark.parametrize(
    ("method", "path", "name", "has_body"),
    [
        ("GET", "/v2", "REST ServerMetadata", False),
        ("GET", "/v2/", "REST ServerMetadata", False),
        ("GET", MODEL, "REST ModelMetadata", False),
        ("GET", f"{MODEL}/versions/2", "REST ModelMetadata", False),
        ("GET", f"{MODEL}/ready", "REST ModelReady", False),
        ("GET", f"{MODEL}/versions/2/ready", "REST ModelReady", False),
        ("POST", f"{MODEL}/infer", "REST ModelInfer", True),
        ("POST", f"{MODEL}/versions/2/infer", "REST ModelInfer", True),
        ("POST", "/v2", None, None),
        ("POST", MODEL, None, None),
        ("POST", f"{MODEL}/ready", None, None),
        ("GET", f"{MODEL}/infer", None, None),
        ("GET", "/v2/models", None, None),
        ("GET", f"{MODEL}/other", None, None),
        ("DELETE", MODEL, None, None),
    ],
)
def test_the_call_of_each_path(method, path, name, has_body):
    route = InferenceRest(None, None, None, None).route(method, path, {})
    assert (None if route is None else (route[0], route[2])) == (
        None if name is None else (name, has_body)
    )


def test_the_header_of_a_body_with_binary_tensors():
    for text, most in (("0", 0), ("7", 7), ("007", 7)):
        assert _header_length(text, most) == int(text)
    for text in ("8", "-1", "", "7.0", "\u00b2", "0" * 20, "9" * 5000):
        with pytest.raises(StatusError) as caught:
            _header_length(text, 7)
        assert caught.value.details.startswith(
            f"The header {LENGTH} must be the bytes of the JSON, at most 7, received {text[:20]}"
        )


def test_names_and_versions_in_a_path(server):
    status, found = document(server, "/v2/models/a%20b/versions/1")
    assert (status, found["name"], found["versions"]) == (200, "a b", ["1", "2"])
    assert found["inputs"][0]["shape"] == [-1, 8, 8, 3]
    assert document(server, f"{MODEL}/versions/stable/ready") == (
        200,
        {"name": "colors", "ready": True},
    )

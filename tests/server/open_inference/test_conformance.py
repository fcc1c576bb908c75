"""The protocol by NVIDIA's client, over gRPC and HTTP: the answers of Predict, bit for bit."""

import contextlib

import numpy as np
import pytest

from cnnkit import __version__

grpcclient = pytest.importorskip("tritonclient.grpc")
httpclient = pytest.importorskip("tritonclient.http")

SIGNATURES = ("serving_default", "serving_bytes", "classify_bytes", "two_inputs")
DATATYPES = {"f": "FP32", "i": "INT64", "O": "BYTES"}
# Of each API, the code of an error in the client's words.
CODES = {
    "INVALID_ARGUMENT": ("StatusCode.INVALID_ARGUMENT", "400"),
    "NOT_FOUND": ("StatusCode.NOT_FOUND", "404"),
    "FAILED_PRECONDITION": ("StatusCode.FAILED_PRECONDITION", "400"),
}


@pytest.fixture(scope="module", params=["grpc", "http"])
def api(request):
    return grpcclient if request.param == "grpc" else httpclient


@pytest.fixture(scope="module")
def client(server, api):
    address = server.address if api is grpcclient else server.rest_address
    with contextlib.closing(api.InferenceServerClient(address)) as opened:
        yield opened


def infer_inputs(api, arrays, **how):
    given = []
    for name, array in arrays.items():
        given.append(api.InferInput(name, list(array.shape), DATATYPES[array.dtype.kind]))
        given[-1].set_data_from_numpy(array, **how)
    return given


def same_bits(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tolist() == expected.tolist() if found.dtype == object else True
    assert found.dtype == object or found.tobytes() == expected.tobytes()


def fields(answer, name):
    """Returns a field of an answer, which is a message or a document."""
    return answer[name] if isinstance(answer, dict) else getattr(answer, name)


def test_health(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("colors") and client.is_model_ready("a b")
    assert client.is_model_ready("colors", "1") and client.is_model_ready("colors", "stable")
    assert client.is_model_ready("colors:classify_bytes")
    for name, version in (("nope", ""), ("colors", "3"), ("colors", "old"), ("colors:nope", "")):
        assert not client.is_model_ready(name, version)


def test_server_metadata(client):
    found = client.get_server_metadata()
    assert fields(found, "name") == "cnnkit" and fields(found, "version") == __version__
    assert list(fields(found, "extensions")) == ["binary_tensor_data"]


def test_model_metadata(client):
    found = client.get_model_metadata("colors")
    assert fields(found, "name") == "colors"
    assert list(fields(found, "versions")) == ["1", "2"]
    assert fields(found, "platform") == "tensorflow_savedmodel"
    (images,) = fields(found, "inputs")
    assert (fields(images, "name"), fields(images, "datatype")) == ("images", "FP32")
    assert list(fields(images, "shape")) == [-1, 8, 8, 3]
    found = client.get_model_metadata("colors:two_inputs", "2")
    kinds = [(fields(one, "name"), fields(one, "datatype")) for one in fields(found, "inputs")]
    assert kinds == [("a", "FP32"), ("b", "INT64")]
    found = client.get_model_metadata("colors:classify_bytes")
    assert [fields(one, "datatype") for one in fields(found, "outputs")] == ["BYTES", "FP32"]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_answers_of_every_signature(client, api, inputs, predicted, signature):
    expected = predicted(signature)
    given = infer_inputs(api, inputs[signature])
    found = client.infer(f"colors:{signature}", given, request_id="order-7")
    assert fields(found.get_response(), "id") == "order-7"
    assert fields(found.get_response(), "model_version") == "2"
    for name, array in expected.items():
        same_bits(found.as_numpy(name), array)
    # The same by the parameter.
    found = client.infer("colors", given, parameters={"signature_name": signature})
    for name, array in expected.items():
        same_bits(found.as_numpy(name), array)


def test_versions_labels_and_chosen_outputs(client, api, inputs, predicted):
    given = infer_inputs(api, inputs["serving_default"])
    expected = predicted("serving_default", 1)
    for version in ("1", "stable"):
        means = api.InferRequestedOutput("means")
        found = client.infer("colors", given, model_version=version, outputs=[means])
        assert fields(found.get_response(), "model_version") == "1"
        same_bits(found.as_numpy("means"), expected["means"])
        assert found.as_numpy("probabilities") is None
        found = client.infer("colors", given, model_version=version)
        same_bits(found.as_numpy("probabilities"), expected["probabilities"])


def test_numbers_in_json(server, inputs, predicted):
    with contextlib.closing(httpclient.InferenceServerClient(server.rest_address)) as client:
        given = infer_inputs(httpclient, inputs["serving_default"], binary_data=False)
        asked = [httpclient.InferRequestedOutput("probabilities", binary_data=False)]
        found = client.infer("colors", given, outputs=asked)
        expected = predicted("serving_default")["probabilities"]
        same_bits(found.as_numpy("probabilities"), expected)
        assert "data" in found.get_output("probabilities")
        given = infer_inputs(httpclient, inputs["classify_bytes"])
        asked = [httpclient.InferRequestedOutput("labels", binary_data=False)]
        found = client.infer("colors:classify_bytes", given, outputs=asked)
        expected = predicted("classify_bytes")["labels"]
        assert found.get_output("labels")["data"] == [one.decode() for one in expected.flat]
        for packing in ("gzip", "deflate"):
            found = client.infer(
                "colors:classify_bytes", given, request_compression_algorithm=packing
            )
            same_bits(found.as_numpy("labels"), expected)


def test_errors(client, api, inputs):
    images = infer_inputs(api, inputs["serving_default"])
    wrong = {
        ("nope", "", "Servable not found for request: Latest(nope)"): "NOT_FOUND",
        ("colors", "9", "Servable not found for request: Specific(colors, 9)"): "NOT_FOUND",
        ("colors", "old", "Unrecognized servable version label: old"): "INVALID_ARGUMENT",
        ("colors:nope", "", 'Serving signature key "nope" not found.'): "FAILED_PRECONDITION",
        ("colors:two_inputs", "", "input size does not match signature"): "INVALID_ARGUMENT",
    }
    for (name, version, text), code in wrong.items():
        with pytest.raises(Exception, match=r".") as caught:
            client.infer(name, images, model_version=version)
        assert text in caught.value.message()
        assert caught.value.status() == CODES[code][api is httpclient]
    shape = infer_inputs(api, {"images": np.zeros((1, 9, 8, 3), np.float32)})
    with pytest.raises(Exception, match=r"Shape of tensor images \[1,9,8,3\] is not compatible"):
        client.infer("colors", shape)
    rows = infer_inputs(api, {"images": np.zeros((9, 8, 8, 3), np.float32)})
    with pytest.raises(Exception, match="Task size 9 is larger than maximum input batch size 8"):
        client.infer("colors", rows)
    kind = infer_inputs(api, {"images": np.zeros((1, 8, 8, 3), np.int64)})
    with pytest.raises(Exception, match="to be float but int64 is provided"):
        client.infer("colors", kind)
    with pytest.raises(Exception, match="`signature_name` must be the signature of the model name"):
        client.infer("colors:two_inputs", images, parameters={"signature_name": "serving_bytes"})
    with pytest.raises(Exception, match="has no signature nope; name one of colors:classify_bytes"):
        client.get_model_metadata("colors:nope")

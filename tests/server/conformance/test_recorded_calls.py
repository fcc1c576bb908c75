"""46 calls recorded with TensorFlow Serving, replayed to the client and to the embedded server."""

import base64
import json
import re
from pathlib import Path

import grpc
import numpy as np
import pytest

from cnnkit.client import Client, InvalidRequest, ModelNotFound, ServerError
from cnnkit.client.calls import CallOptions
from cnnkit.client.encode import RequestTarget
from cnnkit.client.flow import Deadline
from cnnkit.client.metadata import signatures, version_statuses
from cnnkit.server import EmbeddedServer
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor
from tests.helpers.fake_servers import fake_server

ORACLE = Path(__file__).resolve().parents[4] / "shared" / "oracles" / "serving"
CASES = []
if (ORACLE / "cases.jsonl").exists():
    CASES = [json.loads(line) for line in (ORACLE / "cases.jsonl").read_text().splitlines()]

pytestmark = pytest.mark.skipif(not CASES, reason=f"no recorded answers in {ORACLE}")

RESPONSES = {
    methods.PREDICT: pb.PredictResponse,
    methods.GET_MODEL_METADATA: pb.GetModelMetadataResponse,
    methods.GET_MODEL_STATUS: pb.GetModelStatusResponse,
}
# Texts of the transport, which differ between gRPC in C++ and in Python.
TRANSPORT = {"unknown method"}


def ids(case):
    return case["case"].replace(" ", "-")


def unpack(text):
    return None if text is None else base64.b64decode(text)


def first_line(details):
    """Returns the first line, without names of tensors and the marker of C++'s debugging texts."""
    line = details.partition("\n")[0].replace("goo.gle/debugonly", "").rstrip()
    return re.sub(r"Shape of tensor \S+", "Shape of tensor X", line)


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(
        {"tiny": ORACLE / "tiny"},
        versions="all",
        version_labels={"tiny": {"stable": 1}},
        allow_reload=True,
    ) as started:
        yield started


def test_the_number_of_recorded_calls():
    assert len(CASES) == 46


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_the_embedded_server_answers_as_tensorflow_serving(server, case):
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(case["method"])
        if case["code"] != "OK":
            with pytest.raises(grpc.RpcError) as caught:
                call(unpack(case["request"]), timeout=20)
            assert caught.value.code().name == case["code"]
            if case["case"] not in TRANSPORT:
                assert first_line(caught.value.details()) == first_line(case["details"])
            return
        ours, theirs = call(unpack(case["request"]), timeout=20), unpack(case["response"])
    if case["method"] != methods.PREDICT:
        answer = RESPONSES.get(case["method"])
        assert (answer.FromString(ours) if answer else ours) == (
            answer.FromString(theirs) if answer else theirs
        )
        return
    ours, theirs = pb.PredictResponse.FromString(ours), pb.PredictResponse.FromString(theirs)
    assert ours.model_spec == theirs.model_spec
    assert set(ours.outputs) == set(theirs.outputs)
    for name, tensor in theirs.outputs.items():
        assert ours.outputs[name].dtype == tensor.dtype
        np.testing.assert_allclose(
            decode_tensor(ours.outputs[name]), decode_tensor(tensor), atol=1e-6
        )


@pytest.fixture
def replay():
    """Runs a client with a fake server that returns one recorded response."""

    def run(case, use):
        def answer(path, request, context):
            if path != case["method"]:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "not recorded")
            if case["code"] != "OK":
                context.abort(grpc.StatusCode[case["code"]], case["details"])
            return unpack(case["response"])

        with fake_server(answer) as address, Client(address, timeout=20) as client:
            return use(client)

    return run


def known_metadata(client):
    """Puts the recorded signatures into the client's cache."""
    recorded = next(case for case in CASES if case["case"] == "metadata")
    packed = pb.GetModelMetadataResponse.FromString(unpack(recorded["response"]))
    definitions = packed.metadata["signature_def"].value
    client._calls.known_signatures[RequestTarget("tiny")] = signatures(definitions)


def send(client, case):
    """Makes the client send a recorded call."""
    if case["method"] == methods.GET_MODEL_METADATA:
        return client.metadata("tiny")
    if case["method"] == methods.GET_MODEL_STATUS:
        return client.status("tiny")
    if case["method"] == methods.PREDICT:
        known_metadata(client)
        return client.predict(np.zeros((1, 16, 16, 3)), model="tiny")
    # The client has no method for this call, so its flow is run directly.
    options = CallOptions(RequestTarget("tiny"), Deadline(20))
    return client._run(client._calls.call(case["method"], b"", bytes, options))


OK = [case for case in CASES if case["code"] == "OK"]
REFUSED = [case for case in CASES if case["code"] != "OK"]
KINDS = {
    "NOT_FOUND": ModelNotFound,
    "INVALID_ARGUMENT": InvalidRequest,
    "FAILED_PRECONDITION": InvalidRequest,
}


@pytest.mark.parametrize("case", REFUSED, ids=ids)
def test_the_client_reports_each_error(replay, case):
    with pytest.raises(ServerError) as caught:
        replay(case, lambda client: send(client, case))
    error = caught.value
    kind = (
        ModelNotFound if case["case"] == "unknown label" else KINDS.get(case["code"], ServerError)
    )
    assert type(error) is kind
    assert error.code == case["code"]
    assert error.details == case["details"]
    assert "\n" not in str(error)
    assert " ".join(case["details"].partition("\n")[0].split()) in str(error)


@pytest.mark.parametrize("case", OK, ids=ids)
def test_the_client_reads_each_answer(replay, case):
    answered = replay(case, lambda client: send(client, case))
    recorded = unpack(case["response"])
    if case["method"] == methods.PREDICT:
        theirs = pb.PredictResponse.FromString(recorded).outputs
        assert set(answered) == {"probabilities"} == set(theirs)
        rows = theirs["probabilities"].tensor_shape.dim[0].size
        assert answered["probabilities"].shape == (rows, 5)
        assert answered["probabilities"].dtype == np.float32
        np.testing.assert_array_equal(
            answered["probabilities"].ravel(),
            np.float32(list(theirs["probabilities"].float_val)),
        )
        np.testing.assert_allclose(answered["probabilities"].sum(1), 1, atol=1e-5)
    elif case["method"] == methods.GET_MODEL_METADATA:
        assert str(answered["serving_default"].inputs["images"]) == "float32 (n, 16, 16, 3)"
        assert str(answered["serving_bytes"].inputs["image_bytes"]) == "string (n,)"
        assert set(answered) == {"serving_default", "serving_bytes"}
    elif case["method"] == methods.GET_MODEL_STATUS:
        assert answered == version_statuses(recorded)
        assert {status.state for status in answered} == {"AVAILABLE"}
    else:
        assert answered == recorded

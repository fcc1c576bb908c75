"""The client against the embedded server, and against servers that fail in every way."""

import socket
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest

from cnnkit.client import (
    Client,
    ConnectionLost,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    Prediction,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    Signature,
    TensorSpec,
    VersionStatus,
)
from cnnkit.client.encode import RequestTarget
from cnnkit.client.inputs import coerce_input
from cnnkit.client.metadata import signatures
from cnnkit.errors import CnnkitError, DataError, UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from tests.helpers.fake_servers import fake_server
from tests.helpers.serving import COLORS, SIZE, TOP, expected_probabilities


@pytest.fixture
def client(colors_server):
    with Client(colors_server.address, timeout=20) as opened:
        yield opened


@pytest.fixture
def images(rng):
    return rng.uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)


def watch(client, monkeypatch):
    """Returns a list that the paths of the client's calls are added to."""
    called = []
    method = client._method
    monkeypatch.setattr(client, "_method", lambda path: (called.append(path), method(path))[1])
    return called


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


def test_predict_by_array_and_by_name(client, images):
    for inputs in (images, {"images": images}, images.tolist()):
        answered = client.predict(inputs, model="colors")
        assert set(answered) == {"means", "probabilities"}
        np.testing.assert_allclose(
            answered["probabilities"], expected_probabilities(images, 64), atol=1e-6
        )
        np.testing.assert_allclose(answered["means"], images.mean((1, 2)), rtol=1e-5)


def test_version_label_and_outputs(client, images):
    first = expected_probabilities(images, 32)
    for chosen in ({"version": 1}, {"label": "stable"}):
        answered = client.predict(images, model="colors", outputs=["probabilities"], **chosen)
        assert set(answered) == {"probabilities"}
        np.testing.assert_allclose(answered["probabilities"], first, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.int64, np.float16, bool])
def test_numbers_are_cast(client, images, dtype):
    cast = images.astype(dtype)
    np.testing.assert_allclose(
        client.predict(cast, model="colors")["probabilities"],
        expected_probabilities(cast, 64),
        atol=1e-6,
    )


def test_a_missing_batch_axis_is_added(client, images):
    answered = client.predict(images[0], model="colors")["probabilities"]
    np.testing.assert_allclose(answered, expected_probabilities(images[:1], 64), atol=1e-6)


def test_several_inputs_by_name(client):
    inputs = {"a": [0.5, 1.5], "b": [1, 2]}
    answered = client.predict(inputs, model="colors", signature="two_inputs")
    assert answered["sum"].tolist() == [1.5, 3.5]


@pytest.mark.parametrize(
    ("inputs", "options", "text"),
    [
        (np.zeros((0, SIZE, SIZE, 3)), {}, "'images' is empty. Expected: a batch of 1 or more"),
        (np.zeros((2, 9, SIZE, 3)), {}, "wrong shape. Expected: float32 (n, 8, 8, 3). Received"),
        (np.zeros((SIZE, 3)), {}, "wrong shape"),
        (np.zeros((1, 1, SIZE, SIZE, 3)), {}, "wrong shape"),
        (np.array(1.0), {}, "wrong shape"),
        (["a"], {}, "wrong element type. Expected: float32. Received: string"),
        (np.zeros((1, SIZE, SIZE, 3), complex), {}, "wrong element type"),
        (np.full((1, SIZE, SIZE, 3), 1e300), {}, "cannot hold"),
        ([[1], [1, 2]], {}, "not an array that can be sent"),
        ({"image": np.zeros((1, SIZE, SIZE, 3))}, {}, "Did you mean images?"),
        ({}, {}, "An input of the signature is missing. Expected: images"),
        (np.zeros(2), {"signature": "two_inputs"}, "a dict with a, b"),
        ({"a": [1.0]}, {"signature": "two_inputs"}, "is missing. Expected: a, b. Received: a"),
        ({"a": [1.0], "b": [1.5]}, {"signature": "two_inputs"}, "Expected: int64"),
        (np.zeros(2), {"signature": "serving"}, "Unknown signature 'serving'"),
        (np.zeros((1, SIZE, SIZE, 3)), {"outputs": ["logits"]}, "Unknown output 'logits'"),
        (np.zeros(2), {"version": 1, "label": "stable"}, "asked for twice"),
        (np.zeros(2), {"timeout": 0}, "needs a deadline"),
    ],
)
def test_wrong_inputs_are_refused_before_they_are_sent(
    colors_folder, inputs, options, text, monkeypatch, client
):
    called = watch(client, monkeypatch)
    with pytest.raises(UsageError) as caught:
        client.predict(inputs, model="colors", **options)
    assert text in one_line(caught.value)
    assert methods.PREDICT not in called


def test_whole_numbers_keep_their_values():
    spec = TensorSpec("uint8", (None,))
    assert coerce_input(np.array([1, 255]), spec, "x").dtype == np.uint8
    with pytest.raises(UsageError, match="wrong element type"):
        coerce_input(np.array([256]), spec, "x")


def test_an_open_rank_is_left_to_the_server():
    assert coerce_input(np.zeros((2, 3)), TensorSpec("float32", None), "x").shape == (2, 3)


def test_metadata(client):
    offered = client.metadata("colors")
    assert offered["serving_default"] == Signature(
        {"images": TensorSpec("float32", (None, SIZE, SIZE, 3))},
        {
            "means": TensorSpec("float32", (None, 3)),
            "probabilities": TensorSpec("float32", (None, len(COLORS))),
        },
    )
    assert set(client.metadata("colors", version=1)) == {"serving_bytes", "serving_default"}


def test_metadata_of_an_unknown_type_and_rank():
    info = pb.TensorInfo(dtype=20)
    info.tensor_shape.unknown_rank = True
    definitions = pb.SignatureDefMap(signature_def={"f": pb.SignatureDef(inputs={"x": info})})
    spec = signatures(definitions)["f"].inputs["x"]
    assert (spec.dtype, spec.shape, str(spec)) == (
        "data type 20",
        None,
        "data type 20 of any shape",
    )


def test_metadata_is_asked_for_once(client, images, monkeypatch):
    asked = watch(client, monkeypatch)
    for _ in range(3):
        client.predict(images, model="colors")
    assert asked == [methods.GET_MODEL_METADATA, *[methods.PREDICT] * 3]


def test_a_model_that_was_replaced_is_looked_at_again(client, images):
    # As if the client had seen an older version, with another input.
    client._plans.known[RequestTarget("colors")] = {
        "serving_default": Signature({"pixels": TensorSpec("float32", (None, 5))}, {})
    }
    assert client.predict(images, model="colors")["probabilities"].shape == (3, len(COLORS))


def test_status(client):
    assert client.status("colors") == [
        VersionStatus(2, "AVAILABLE", "OK", ""),
        VersionStatus(1, "AVAILABLE", "OK", ""),
    ]
    assert [status.version for status in client.status("colors", version=1)] == [1]


def test_classify_with_labels(client, png, tmp_path):
    file = tmp_path / "green.png"
    file.write_bytes(png(10, 200, 60))
    for images in ([str(file), png(0, 0, 130)], [file, png(0, 0, 130)]):
        green, blue = client.classify(images, model="colors", top=2)
        assert [prediction.label for prediction in green] == ["green", "blue"]
        assert [prediction.label for prediction in blue][0] == "blue"
        wanted = sorted(expected_probabilities(np.full((1, 1, 1, 3), (10, 200, 60)), 64)[0])
        probabilities = [prediction.probability for prediction in green]
        np.testing.assert_allclose(probabilities, wanted[:-3:-1], atol=1e-6)
    assert isinstance(green[0], Prediction)
    assert isinstance(green[0].probability, float)


def test_classify_one_image_alone(client, png):
    assert client.classify(png(255, 0, 0), model="colors", top=1)[0][0].label == "red"


def test_classify_without_labels_names_the_index(client, png):
    (best, *rest), *_ = client.classify([png(0, 255, 0)], model="colors", version=1, top=4)
    assert best.label == "class 1"
    # red, blue and dark are equally probable: the order is theirs by index
    assert [prediction.label for prediction in rest] == ["class 0", "class 2", "class 3"]


def answered(probabilities):
    """A plan that needs no step."""
    yield from ()
    return {"probabilities": probabilities}


def test_classify_answers_five_classes_at_most_unless_told_otherwise(client, png):
    labels = [prediction.label for prediction in client.classify(png(0, 9, 0), model="colors")[0]]
    assert len(labels) == TOP
    assert len(client.classify(png(0, 9, 0), model="colors", version=1)[0]) == len(COLORS)
    probabilities = np.linspace(0, 1, 20)[np.newaxis]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client._plans, "predict", lambda *given: answered(probabilities))
        assert len(client.classify(b"...", model="colors", version=1)[0]) == 5


def test_classify_more_classes_than_there_are(client, png):
    with pytest.raises(UsageError) as caught:
        client.classify([png(0, 0, 0)], model="colors", top=TOP + 2)
    assert f"Expected: top <= {TOP}. Received: {TOP + 2}" in one_line(caught.value)
    with pytest.raises(UsageError, match="one class at least"):
        client.classify([png(0, 0, 0)], model="colors", top=0)


@pytest.mark.parametrize(
    ("images", "kind", "text"),
    [
        (["no/such.png"], UsageError, "There is no such image file. Received: no/such.png"),
        ([], UsageError, "There is no image"),
        ([b""], DataError, "An image is empty"),
        ([3], UsageError, "neither a path, bytes nor an array. Received: int"),
        (["."], DataError, "cannot be read"),
    ],
)
def test_wrong_images_need_no_server(images, kind, text):
    with Client("localhost:1") as client, pytest.raises(kind) as caught:
        client.classify(images, model="colors")
    assert text in one_line(caught.value)


def test_an_image_that_is_none(client):
    with pytest.raises(InvalidRequest) as caught:
        client.classify([b"not an image"], model="colors", top=1)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "Unknown image file format" in one_line(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"model": "nope"}, "Use a name that the server serves; 'nope' is none"),
        ({"model": "colors", "version": 9}, "Versions of 'colors' that are available: 1, 2"),
        ({"model": "colors", "label": "canary"}, "Versions of 'colors' that are available: 1, 2"),
    ],
)
def test_unknown_models_list_what_there_is(client, images, options, text):
    with pytest.raises(ModelNotFound) as caught:
        client.predict(images, **options)
    assert text in one_line(caught.value)
    assert isinstance(caught.value, ServerError)
    assert isinstance(caught.value, CnnkitError)


def test_nobody_there():
    with Client("localhost:1", timeout=5) as client, pytest.raises(ServerUnavailable) as caught:
        client.status("colors")
    text = one_line(caught.value)
    assert "No model server answers at localhost:1" in text
    assert "Start one with `cnnkit serve DIR --port 1`" in text
    assert caught.value.code == "UNAVAILABLE"


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":8500", "http://a:1", "a:99999"])
def test_addresses_that_are_none(address):
    with pytest.raises(UsageError, match="Expected: HOST:PORT"):
        Client(address)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_every_call_has_a_deadline(timeout):
    with pytest.raises(UsageError, match="deadline"):
        Client("localhost:1", timeout=timeout)


def test_a_closed_client(client):
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.status("colors")


def refuse(code, details):
    def answer(path, request, context):
        context.abort(code, details)

    return answer


@pytest.mark.parametrize(
    ("code", "details", "kind", "text"),
    [
        ("UNAVAILABLE", "Socket closed", ConnectionLost, "in the middle of a call"),
        ("UNAVAILABLE", "The batch scheduling queue is full", ServerBusy, "try again"),
        ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", ServerBusy, "try again"),
        ("RESOURCE_EXHAUSTED", "memory", ServerError, "at its limit"),
        ("UNIMPLEMENTED", "", ServerError, "8500 by custom"),
        ("INTERNAL", "oops\nnode 3", ServerError, "Received: INTERNAL: oops. The server's log"),
        ("FAILED_PRECONDITION", "Serving signature key", InvalidRequest, "refuses this request"),
        ("OUT_OF_RANGE", "x", InvalidRequest, "refuses this request"),
        ("INVALID_ARGUMENT", "Unrecognized servable version label: a", ModelNotFound, "is none"),
    ],
)
def test_codes_become_errors(code, details, kind, text):
    with (
        fake_server(refuse(grpc.StatusCode[code], details)) as address,
        Client(address, timeout=5, attempts=1) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.status("m")
    assert type(caught.value) is kind
    assert text in one_line(caught.value)
    assert (caught.value.code, caught.value.details) == (code, details)


def test_a_server_that_does_not_answer():
    release = threading.Event()

    def answer(path, request, context):
        release.wait(10)
        return b""

    with fake_server(answer) as address, Client(address, timeout=0.2) as client:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            client.status("m")
        assert time.monotonic() - begun < 5
        release.set()
    assert "did not answer within 0.2 s" in one_line(caught.value)


def test_an_answer_that_is_no_message():
    with (
        fake_server(lambda *call: b"\xff\xff") as address,
        Client(address) as client,
        pytest.raises(ServerError, match="INTERNAL"),
    ):
        client.status("m")


def test_a_state_that_is_new_to_us():
    response = pb.GetModelStatusResponse()
    response.model_version_status.add(version=1, state=77)
    answer = response.SerializeToString()
    with fake_server(lambda *call: answer) as address, Client(address) as client:
        assert client.status("m") == [VersionStatus(1, "77", "OK", "")]


def test_wait_until_ready_waits_for_a_server_that_starts():
    states = [pb.ModelVersionStatus.LOADING, pb.ModelVersionStatus.AVAILABLE]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = threading.Event()

    def answer(path, request, context):
        response = pb.GetModelStatusResponse()
        response.model_version_status.add(version=1, state=states.pop(0))
        return response.SerializeToString()

    def start_later():
        time.sleep(0.5)
        with fake_server(answer, port):
            done.wait(20)

    thread = threading.Thread(target=start_later)
    thread.start()
    try:
        with Client(f"127.0.0.1:{port}") as client:
            client.wait_until_ready("m", timeout=15)
    finally:
        done.set()
        thread.join()
    assert states == []


def test_wait_until_ready_gives_up():
    with Client("localhost:1") as client, pytest.raises(ServerUnavailable):
        client.wait_until_ready("colors", timeout=0.5)


def test_wait_until_ready_for_a_model_that_stays_loading():
    response = pb.GetModelStatusResponse()
    response.model_version_status.add(version=1, state=pb.ModelVersionStatus.LOADING)
    answer = response.SerializeToString()
    with (
        fake_server(lambda *call: answer) as address,
        Client(address) as client,
        pytest.raises(DeadlineExceeded, match="1 LOADING"),
    ):
        client.wait_until_ready("m", timeout=0.4)


def test_wait_until_ready_for_a_model_that_cannot_be_loaded():
    response = pb.GetModelStatusResponse()
    status = response.model_version_status.add(version=3, state=pb.ModelVersionStatus.END)
    status.status.error_code = pb.NOT_FOUND
    status.status.error_message = "no variables"
    answer = response.SerializeToString()
    with (
        fake_server(lambda *call: answer) as address,
        Client(address) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.wait_until_ready("m", timeout=20)
    assert "Version 3 of 'm' cannot be loaded. Received: NOT_FOUND: no variables" in one_line(
        caught.value
    )


FORBID = """
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "sklearn", "ml_dtypes", "scipy"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Forbid())
import numpy as np
from cnnkit.client import Client
with Client(sys.argv[1]) as client:
    answered = client.predict(np.zeros((1, 8, 8, 3), np.float32), model="colors")
    print(answered["probabilities"].tolist(), client.status("colors")[0].state)
"""


def test_the_client_needs_no_tensorflow(colors_server):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORBID, colors_server.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "[[0.25, 0.25, 0.25, 0.25]] AVAILABLE\n"

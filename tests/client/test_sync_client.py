"""The blocking client against servers that fail, or that start late."""

import socket
import threading
import time

import grpc
import pytest

from cnnkit.client import (
    Client,
    DeadlineExceeded,
    InvalidResponse,
    ModelNotFound,
    ServerError,
    ServerUnavailable,
)
from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from tests.helpers.fake_servers import Doubling, fake_server


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


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
    with pytest.raises(UsageError, match="`timeout` must be positive and finite"):
        Client("localhost:1", timeout=timeout)


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


def serve_labels(states, labels):
    """Answers as TensorFlow Serving: a status call ignores the label, a metadata call does not."""

    def answer(path, request, context):
        if path == methods.GET_MODEL_METADATA:
            spec = pb.GetModelMetadataRequest.FromString(request).model_spec
            if spec.version_label not in labels:
                text = f"Unrecognized servable version label: {spec.version_label}"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
            response = pb.GetModelMetadataResponse()
            response.model_spec.version.value = labels[spec.version_label]
            return response.SerializeToString()
        spec = pb.GetModelStatusRequest.FromString(request).model_spec
        wanted = spec.version.value if spec.HasField("version") else None
        response = pb.GetModelStatusResponse()
        for version, state in states.items():
            if wanted in (None, version):
                response.model_version_status.add(version=version, state=state)
        return response.SerializeToString()

    return answer


AVAILABLE, END = pb.ModelVersionStatus.AVAILABLE, pb.ModelVersionStatus.END


def test_the_status_of_a_label_is_that_of_its_version():
    states, labels = {3: END, 2: AVAILABLE, 1: AVAILABLE}, {"stable": 1, "old": 3}
    with fake_server(serve_labels(states, labels)) as address, Client(address) as client:
        assert [one.version for one in client.status("m")] == [3, 2, 1]
        assert [one.version for one in client.status("m", version_label="stable")] == [1]
        # A label may move.
        labels["stable"] = 2
        assert [one.version for one in client.status("m", version_label="stable")] == [2]
        with pytest.raises(ModelNotFound, match="Unrecognized servable version label: canary"):
            client.status("m", version_label="canary")


def test_wait_until_ready_waits_for_the_label():
    """Another version that is available is not what was asked for."""
    labels = {}
    changes = []

    def note(change):
        changes.append(change)
        labels["stable"] = 1

    server = serve_labels({2: AVAILABLE, 1: AVAILABLE}, labels)
    with fake_server(server) as address, Client(address) as client:
        with pytest.raises(ModelNotFound, match="Unrecognized servable version label: stable"):
            client.wait_until_ready("m", timeout=0.3, version_label="stable")
        client.wait_until_ready("m", timeout=5, version_label="stable", on_change=note)
    assert changes[1:] == ["version 1 AVAILABLE"]


def test_a_server_that_does_not_resolve_labels_is_reported():
    answer = pb.GetModelMetadataResponse().SerializeToString()
    with (
        fake_server(lambda *call: answer) as address,
        Client(address) as client,
        pytest.raises(InvalidResponse, match=r"which version of 'm' has the label 'stable'"),
    ):
        client.status("m", version_label="stable")


def test_old_names_of_arguments_are_accepted_with_a_warning():
    with fake_server(Doubling()) as address:
        with pytest.warns(FutureWarning, match="`attempts` of BaseClient.__init__.. is now called"):
            client = Client(address, attempts=1)
        with client, pytest.warns(FutureWarning, match="`label` of Client.status.. is now called"):
            assert client.status("m", label="stable")[0].state == "AVAILABLE"
        with (
            Client(address) as client,
            pytest.raises(UsageError, match="`version` and `version_label`"),
        ):
            client.predict([[1, 2]], model="m", version=1, version_label="stable")

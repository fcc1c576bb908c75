"""The embedded server by itself: what it loads, where it listens, what it survives."""

import subprocess
import sys
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cnnkit.client import Client, InvalidRequest, ServerError
from cnnkit.errors import CnnkitError, RunError, UsageError
from cnnkit.server import EmbeddedServer, ServerLimits, server
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto
from tests.helpers.serving import SIZE, expected_probabilities


@pytest.fixture
def ask(colors_server):
    """Sends a message past the client's own checks."""
    with grpc.insecure_channel(colors_server.address) as channel:

        def call(method, request, answer):
            return answer.FromString(
                channel.unary_unary(method)(request.SerializeToString(), timeout=20)
            )

        yield call


def predict_request(**inputs):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors"))
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    return request


def refusal(ask, method, request):
    with pytest.raises(grpc.RpcError) as caught:
        ask(method, request, pb.PredictResponse)
    return caught.value.code().name, caught.value.details()


def test_answers_come_in_value_lists_with_the_model_that_made_them(ask):
    images = np.full((2, SIZE, SIZE, 3), 64, np.float32)
    response = ask(
        methods.PREDICT, predict_request(images=to_tensor_proto(images)), pb.PredictResponse
    )
    probabilities = response.outputs["probabilities"]
    assert not probabilities.tensor_content
    assert len(probabilities.float_val) == 8
    np.testing.assert_allclose(
        decode_tensor(probabilities), expected_probabilities(images, 64), atol=1e-6
    )
    assert response.model_spec.version.value == 2
    assert response.model_spec.signature_name == "serving_default"


def test_the_newest_version_alone_is_served_unless_told_otherwise(colors_folder):
    with EmbeddedServer({"colors": colors_folder}) as server, Client(server.address) as client:
        assert [status.version for status in client.status("colors")] == [2]


def test_several_models(colors_folder):
    models = {"a": colors_folder, "b": colors_folder}
    with EmbeddedServer(models) as server, Client(server.address) as client:
        image = np.zeros((SIZE, SIZE, 3))
        for name in models:
            assert client.predict(image, model=name)["probabilities"].shape == (1, 4)


@pytest.mark.parametrize(
    "shape", [(), (SIZE, SIZE, 3), (1, 1, SIZE, SIZE, 3), (1, 2, SIZE, 3), (1, SIZE, SIZE, 1)]
)
def test_an_unguarded_convolution_survives_a_wrong_shape(tmp_path, shape):
    """TensorFlow's convolution ends the process on a wrong rank; the signature knows better."""
    kernel = tf.constant(np.ones((3, 3, 3, 2), np.float32))

    class Convolution(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32, "images")])
        def convolve(self, images):
            return {"maps": tf.nn.conv2d(images, kernel, 1, "SAME")}

    model = Convolution()
    tf.saved_model.save(model, str(tmp_path / "m" / "1"), {"serving_default": model.convolve})
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="m"))
    request.inputs["images"].CopyFrom(to_tensor_proto(np.zeros(shape, np.float32)))
    with EmbeddedServer({"m": tmp_path / "m"}) as server:
        with (
            grpc.insecure_channel(server.address) as channel,
            pytest.raises(grpc.RpcError) as caught,
        ):
            channel.unary_unary(methods.PREDICT)(request.SerializeToString(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        sizes = ",".join(map(str, shape))
        assert caught.value.details() == (
            f"Shape of tensor images [{sizes}] is not compatible with expected shape [?,8,8,3]."
        )
        with Client(server.address) as client:
            answered = client.predict(np.ones((1, SIZE, SIZE, 3)), model="m")
            assert answered["maps"][0, 1, 1].tolist() == [27, 27]


def test_a_tensor_that_claims_to_be_huge_is_refused(ask):
    """30 bytes must not make the server allocate 2**40 images."""
    tensor = pb.TensorProto(dtype=pb.DT_FLOAT, float_val=[1])
    for size in (2**40, SIZE, SIZE, 3):
        tensor.tensor_shape.dim.add(size=size)
    code, text = refusal(ask, methods.PREDICT, predict_request(images=tensor))
    assert code == "INVALID_ARGUMENT"
    assert text.splitlines()[0] == "tensor parsing error: images"
    assert "too large" in text


def test_the_second_input_of_a_wrong_type_is_named(ask):
    request = predict_request(a=to_tensor_proto(np.float32([1])), b=to_tensor_proto(np.int32([1])))
    request.model_spec.signature_name = "two_inputs"
    assert refusal(ask, methods.PREDICT, request) == (
        "INVALID_ARGUMENT",
        "Expects arg[1] to be int64 but int32 is provided",
    )


def test_inputs_that_do_not_go_together_are_the_graphs_to_refuse(ask):
    request = predict_request(
        a=to_tensor_proto(np.zeros(2, np.float32)), b=to_tensor_proto(np.zeros(3, np.int64))
    )
    request.model_spec.signature_name = "two_inputs"
    code, text = refusal(ask, methods.PREDICT, request)
    assert code == "INVALID_ARGUMENT"
    assert "ncompatible shapes" in text.splitlines()[0]
    assert "Graph execution error" not in text


@pytest.mark.parametrize("method", [methods.CLASSIFY, methods.REGRESS, methods.MULTI_INFERENCE])
def test_example_calls_are_refused(ask, method):
    spec = pb.ModelSpec(name="colors")
    if method == methods.MULTI_INFERENCE:
        request = pb.MultiInferenceRequest(tasks=[pb.InferenceTask(model_spec=spec)])
    else:
        request = pb.ClassificationRequest(model_spec=spec)
    code, text = refusal(ask, method, request)
    assert code == "INVALID_ARGUMENT"
    assert " inputs found in SignatureDef" in text
    assert "serving_default_images:0" in text
    spec.name = "nope"
    if method == methods.MULTI_INFERENCE:
        request.tasks[0].model_spec.name = "nope"
    else:
        request.model_spec.name = "nope"
    assert refusal(ask, method, request)[0] == "NOT_FOUND"


def test_the_signature_that_starts_a_model_cannot_be_called(ask):
    request = predict_request()
    request.model_spec.signature_name = "__saved_model_init_op"
    code, text = refusal(ask, methods.PREDICT, request)
    assert code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
    assert "__saved_model_init_op" in text


def test_a_fault_of_the_server_is_an_answer_too(colors_folder, monkeypatch, caplog):
    with EmbeddedServer({"colors": colors_folder}) as server, Client(server.address) as client:
        client.metadata("colors")
        find = server.repository.find

        def broken(spec):
            raise KeyError("oops")

        monkeypatch.setattr(server.repository, "find", broken)
        with pytest.raises(ServerError) as caught:
            client.metadata("colors")
        assert caught.value.code == "INTERNAL"
        assert "KeyError" in caught.value.details
        monkeypatch.setattr(server.repository, "find", find)
        assert client.metadata("colors")
    assert "A request failed" in caplog.text


def test_many_requests_at_once(colors_server, png):
    files = [png(200, 0, 0), png(0, 200, 0), png(0, 0, 200)]
    address = colors_server.address
    with Client(address, timeout=30) as client, futures.ThreadPoolExecutor(16) as pool:

        def best(index):
            return client.classify(files[index % 3], model="colors", top=1)[0][0].label

        answers = list(pool.map(best, range(60)))
    assert answers == ["red", "green", "blue"] * 20


def test_messages_may_be_larger_than_grpcs_four_megabytes(colors_folder):
    images = np.zeros((8000, SIZE, SIZE, 3), np.float32)
    with (
        EmbeddedServer(
            {"colors": colors_folder}, limits=ServerLimits(max_request_rows=8000)
        ) as server,
        Client(server.address, timeout=60) as client,
    ):
        assert client.predict(images, model="colors")["means"].shape == (8000, 3)


def test_health(colors_server):
    with grpc.insecure_channel(colors_server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "PredictionService", "ModelService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_port_in_use_is_not_shared(colors_folder, colors_server):
    port = int(colors_server.address.rpartition(":")[2])
    with pytest.raises(RunError) as caught:
        EmbeddedServer({"colors": colors_folder}, port=port)
    text = str(caught.value)
    assert f"cannot listen on port {port} of 127.0.0.1" in text
    assert "Address already in use" in text


def test_a_port_taken_meanwhile_is_not_shared_either(colors_folder, colors_server, monkeypatch):
    """Between the first look at the port and the binding, models are loaded for a while."""
    monkeypatch.setattr(server, "check_port_free", lambda *place: None)
    port = int(colors_server.address.rpartition(":")[2])
    with pytest.raises(RunError, match=f"cannot listen on port {port}"):
        EmbeddedServer({"colors": colors_folder}, port=port)


def test_a_port_is_free_again_at_once(colors_folder):
    with EmbeddedServer({"colors": colors_folder}) as server, Client(server.address) as client:
        client.status("colors")
        port = int(server.address.rpartition(":")[2])
    with EmbeddedServer({"colors": colors_folder}, port=port) as server:
        assert server.address == f"127.0.0.1:{port}"


def test_only_this_machine_can_reach_it(colors_server):
    host, _, port = colors_server.address.rpartition(":")
    assert host == "127.0.0.1"
    with Client(f"127.0.0.2:{port}") as client, pytest.raises(ServerError):
        client.status("colors")


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"host": "no.such.host.invalid"}, RunError, "cannot listen"),
        ({"port": 70000}, UsageError, "`port` must be in 0..65535"),
        ({"versions": "newest"}, UsageError, "latest, all"),
        ({"versions": "latest:0"}, UsageError, "latest:N"),
        ({"versions": "2,7"}, UsageError, "Version 7 of model 'colors' cannot be served"),
        ({"version_labels": {"colors": {"stable": 1}}}, UsageError, "'stable' of model 'colors'"),
        (
            {"version_labels": {"shapes": {"stable": 1}}},
            UsageError,
            "`version_labels` must name models that are served",
        ),
    ],
)
def test_options_that_cannot_be(colors_folder, options, kind, text):
    with pytest.raises(kind) as caught:
        EmbeddedServer({"colors": colors_folder}, **options)
    assert text in str(caught.value)


def test_folders_that_hold_no_model(tmp_path, colors_folder):
    def problem(folder):
        with pytest.raises(CnnkitError) as caught:
            EmbeddedServer({"m": folder})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "Model folder 'none' does not exist" in problem(tmp_path / "none")
    assert "Folder '2' is a version of a model" in problem(colors_folder / "2")
    empty = tmp_path / "empty"
    (empty / "latest").mkdir(parents=True)
    assert "Model folder 'empty' holds no version" in problem(empty)
    (empty / "3").mkdir()
    assert "Version folder '3' is incomplete" in problem(empty)
    (empty / "3" / "saved_model.pb").write_bytes(b"\xff\xff")
    assert "Version 3 of model 'm' cannot be loaded" in problem(empty)
    (empty / "3" / "saved_model.pb").write_bytes(b"")
    assert "saved_model.pb must hold a graph with the tag 'serve'" in problem(empty)
    # As after a copy that was cut off: the graph is there, its variables are not.
    (empty / "3" / "saved_model.pb").write_bytes(
        (colors_folder / "2" / "saved_model.pb").read_bytes()
    )
    assert "Version 3 of model 'm' cannot be loaded" in problem(empty)


def test_stopping_lets_a_request_finish(colors_folder, monkeypatch):
    begun, release = threading.Event(), threading.Event()
    with EmbeddedServer({"colors": colors_folder}) as server, Client(server.address) as client:
        find = server.repository.find

        def slow(spec):
            begun.set()
            release.wait(10)
            return find(spec)

        monkeypatch.setattr(server.repository, "find", slow)
        with futures.ThreadPoolExecutor(2) as pool:
            answer = pool.submit(client.metadata, "colors")
            assert begun.wait(10)
            stopped = pool.submit(server.stop, 10)
            with pytest.raises(futures.TimeoutError):
                stopped.result(0.2)
            release.set()
            assert "serving_default" in answer.result(10)
            stopped.result(10)


WITHOUT_KERAS = """
import sys
sys.modules["keras"] = None
sys.modules["tf_keras"] = None
import numpy as np
from pathlib import Path
from cnnkit.client import Client
from cnnkit.server import EmbeddedServer, ServerLimits, server
with EmbeddedServer({"m": Path(sys.argv[1])}) as server, Client(server.address) as client:
    print(client.predict(np.zeros((1, 8, 8, 3)), model="m")["probabilities"].tolist())
"""


def test_the_server_needs_no_keras(colors_folder):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS, str(colors_folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "[[0.25, 0.25, 0.25, 0.25]]\n", done.stderr


def test_an_image_that_is_none_leaves_the_server_well(colors_server, png):
    with Client(colors_server.address) as client:
        with pytest.raises(InvalidRequest) as caught:
            client.classify([png(9, 9, 9), b"GIF89a"], model="colors", top=1)
        assert "Graph execution error" not in caught.value.details
        assert client.classify(png(9, 0, 0), model="colors", top=1)[0][0].label == "red"

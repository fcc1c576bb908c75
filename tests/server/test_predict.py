"""Checks and responses of Predict calls, sent without the checks of the client."""

import time
import tracemalloc
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.client import Client
from cnnkit.export.invalid_inputs import hostile_tensors
from cnnkit.server import EmbeddedServer
from cnnkit.server.predict import prepare_predict
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto
from tests.helpers.serving import SIZE, error_of_call, expected_probabilities


def predict_request(**inputs):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors"))
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    return request


def test_responses_hold_value_lists_and_the_model_version(call_server):
    images = np.full((2, SIZE, SIZE, 3), 64, np.float32)
    response = call_server(
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


@pytest.mark.parametrize(
    "shape", [(), (SIZE, SIZE, 3), (1, 1, SIZE, SIZE, 3), (1, 2, SIZE, 3), (1, SIZE, SIZE, 1)]
)
def test_an_unguarded_convolution_survives_a_wrong_shape(tmp_path, shape):
    """A wrong rank crashes TensorFlow's convolution: the server checks it by the signature."""
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


def test_a_tensor_whose_shape_is_huge_is_refused(call_server):
    """30 bytes must not make the server allocate 2**40 images."""
    tensor = pb.TensorProto(dtype=pb.DT_FLOAT, float_val=[1])
    for size in (2**40, SIZE, SIZE, 3):
        tensor.tensor_shape.dim.add(size=size)
    code, text = error_of_call(call_server, methods.PREDICT, predict_request(images=tensor))
    assert code == "INVALID_ARGUMENT"
    assert text == f"Task size {2**40} is larger than maximum input batch size 256"


HOSTILE = [
    (name, dtype, tensor)
    for dtype in (pb.DT_FLOAT, pb.DT_STRING)
    for name, tensor in hostile_tensors(dtype)
]


@pytest.mark.parametrize(
    ("dtype", "tensor"),
    [row[1:] for row in HOSTILE],
    ids=[f"{name} of {pb.DataType.Name(dtype)}" for name, dtype, _ in HOSTILE],
)
def test_hostile_requests_are_refused_fast_and_cost_no_memory(call_server, dtype, tensor):
    """TensorFlow Serving ends, or allocates gigabytes, before it reads the signature."""
    is_string = dtype == pb.DT_STRING
    request = predict_request(**{"image_bytes" if is_string else "images": tensor})
    request.model_spec.signature_name = "serving_bytes" if is_string else "serving_default"
    tracemalloc.start()
    begun = time.perf_counter()
    code, _ = error_of_call(call_server, methods.PREDICT, request)
    took = time.perf_counter() - begun
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert code == "INVALID_ARGUMENT"
    assert took < 1
    assert peak < 2**21
    good = predict_request(images=to_tensor_proto(np.zeros((1, SIZE, SIZE, 3), np.float32)))
    assert call_server(methods.PREDICT, good, pb.PredictResponse).outputs


@pytest.mark.parametrize("dtype", [pb.DT_FLOAT, pb.DT_STRING])
def test_one_repeated_value_may_stand_for_a_few_images(call_server, dtype, png):
    is_string = dtype == pb.DT_STRING
    tensor = pb.TensorProto(dtype=dtype)
    for size in (3,) if is_string else (3, SIZE, SIZE, 3):
        tensor.tensor_shape.dim.add(size=size)
    if is_string:
        tensor.string_val.append(png(64, 64, 64))
    else:
        tensor.float_val.append(64)
    request = predict_request(**{"image_bytes" if is_string else "images": tensor})
    request.model_spec.signature_name = "serving_bytes" if is_string else "serving_default"
    response = call_server(methods.PREDICT, request, pb.PredictResponse)
    images = np.full((3, SIZE, SIZE, 3), 64)
    np.testing.assert_allclose(
        decode_tensor(response.outputs["probabilities"]),
        expected_probabilities(images, 64),
        atol=1e-6,
    )
    # A file of 100 kB that a request of 100 kB repeats 200 times would take 20 MB in the graph.
    if is_string:
        tensor.string_val[0] = bytes(100_000)
        tensor.tensor_shape.dim[0].size = 200
        request.inputs["image_bytes"].CopyFrom(tensor)
        code, text = error_of_call(call_server, methods.PREDICT, request)
        assert code == "INVALID_ARGUMENT"
        assert "must not repeat the last value so often" in text


def test_the_second_input_of_a_wrong_type_is_named(call_server):
    request = predict_request(a=to_tensor_proto(np.float32([1])), b=to_tensor_proto(np.int32([1])))
    request.model_spec.signature_name = "two_inputs"
    assert error_of_call(call_server, methods.PREDICT, request) == (
        "INVALID_ARGUMENT",
        "Expects arg[1] to be int64 but int32 is provided",
    )


def test_inputs_of_different_lengths_are_refused_by_the_graph(call_server):
    request = predict_request(
        a=to_tensor_proto(np.zeros(2, np.float32)), b=to_tensor_proto(np.zeros(3, np.int64))
    )
    request.model_spec.signature_name = "two_inputs"
    code, text = error_of_call(call_server, methods.PREDICT, request)
    assert code == "INVALID_ARGUMENT"
    assert "ncompatible shapes" in text.splitlines()[0]
    assert "Graph execution error" not in text


def test_the_signature_that_starts_a_model_cannot_be_called(call_server):
    request = predict_request()
    request.model_spec.signature_name = "__saved_model_init_op"
    code, text = error_of_call(call_server, methods.PREDICT, request)
    assert code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
    assert "__saved_model_init_op" in text


def test_images_that_are_files_have_no_pixels_to_check():
    """A SavedModel of others may call its encoded images `images`."""
    definitions = pb.SignatureDefMap()
    signature = definitions.signature_def["serving_default"]
    signature.inputs["images"].dtype = pb.DT_STRING
    signature.inputs["images"].tensor_shape.dim.add(size=-1)
    servable = SimpleNamespace(definitions=definitions, takes_pixels=True)
    request = predict_request(images=to_tensor_proto(np.array([b"a", b"bc"], object)))
    call = prepare_predict(request.SerializeToString(), lambda spec: servable)
    assert call.inputs["images"].tolist() == [b"a", b"bc"]

"""Checks and responses of Predict calls, sent without the checks of the client."""

import struct
import time
import tracemalloc
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.client import Client
from cnnkit.export.invalid_inputs import hostile_tensors
from cnnkit.server import EmbeddedServer, predict
from cnnkit.server.predict import PreparedCall, encode_predict_response, prepare_predict
from cnnkit.server.status_error import StatusError
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


def version(takes_pixels=False, outputs=("y", "b", "z"), **inputs):
    """Returns a version whose default signature has inputs (dtype, sizes or None)."""
    definitions = pb.SignatureDefMap()
    definition = definitions.signature_def["serving_default"]
    for name, (dtype, sizes) in inputs.items():
        definition.inputs[name].dtype = dtype
        definition.inputs[name].name = f"{name}:0"
        definition.inputs[name].tensor_shape.unknown_rank = sizes is None
        for size in sizes or ():
            definition.inputs[name].tensor_shape.dim.add(size=size)
    for name in outputs:
        definition.outputs[name].SetInParent()
    return SimpleNamespace(definitions=definitions, takes_pixels=takes_pixels)


def prepared(served, arrays, asked=(), **limits):
    request = predict_request(**{name: to_tensor_proto(array) for name, array in arrays.items()})
    request.output_filter.extend(asked)
    return prepare_predict(request.SerializeToString(), lambda spec: served, **limits)


def refused(*given, **limits):
    with pytest.raises(StatusError) as caught:
        prepared(*given, **limits)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    return caught.value.details


def test_the_call_that_a_request_becomes():
    served = version(b=(pb.DT_INT64, (-1,)), a=(pb.DT_FLOAT, (-1, 2)))
    arrays = {"b": np.int64([7]), "a": np.float32([[1, 2]])}
    call = prepared(served, arrays)
    assert (call.servable, call.signature, call.outputs, call.rows) == (
        served,
        "serving_default",
        ("b", "y", "z"),
        1,
    )
    assert list(call.inputs) == ["a", "b"]
    assert [array.tolist() for array in call.inputs.values()] == [[[1, 2]], [7]]
    # In the order in which they are asked for.
    assert prepared(served, arrays, ["z", "b"]).outputs == ("z", "b")
    assert refused(served, arrays, ["z", "c\n"]) == (
        "output tensor alias not found in signature: c\\n "
        "Outputs expected to be in the set {b,y,z}."
    )


def test_rows_are_those_of_every_input():
    served = version(a=(pb.DT_FLOAT, None), b=(pb.DT_FLOAT, None))
    ones = np.ones
    for a, b, rows in (((2, 3), (2,), 2), ((2,), (3,), None), ((), (1,), None), ((), (), None)):
        arrays = {"a": ones(a, np.float32), "b": ones(b, np.float32)}
        assert prepared(served, arrays, max_rows=3).rows == rows
    text = "Task size 2 is larger than maximum input batch size 1"
    arrays = {"a": ones((2, 1), np.float32), "b": ones(2, np.float32)}
    assert refused(served, arrays, max_rows=1) == text
    assert prepared(served, arrays).rows == 2


def test_the_memory_of_the_inputs_is_counted_before_they_are_decoded(monkeypatch):
    served = version(a=(pb.DT_FLOAT, (-1,)), b=(pb.DT_DOUBLE, (-1,)))
    arrays, order = {"a": np.zeros(5, np.float32), "b": np.zeros(3)}, []
    decode = predict.decode_tensor_bytes
    monkeypatch.setattr(
        predict,
        "decode_tensor_bytes",
        lambda raw, *, max_bytes: (order.append(max_bytes), decode(raw, max_bytes=max_bytes))[1],
    )
    prepared(served, arrays, add_memory=order.append, max_tensor_bytes=24)
    assert order == [4 * 5 + 8 * 3, 24, 24]
    text = refused(served, arrays, max_tensor_bytes=23)
    assert text.startswith("tensor parsing error: b\n`tensor_shape` must not be larger")


def test_the_work_of_all_image_files_is_limited(png):
    served = version(a=(pb.DT_STRING, (-1,)), b=(pb.DT_STRING, (-1,)))
    file = png(1, 2, 3)
    height, width = struct.unpack(">II", file[16:24])
    most = 3 * 6 * height * width
    arrays = {"a": np.array([file, file], object), "b": np.array([file, b"x"], object)}
    assert prepared(served, arrays, max_pixels=most).rows == 2
    assert refused(served, arrays, max_pixels=most - 1) == (
        f"the image files of a request have {most} pixels, each counted by the work of decoding "
        f"it, and may have {most - 1}: send fewer or smaller images at once"
    )


def test_pixels_are_checked_for_exports_that_take_them():
    images = {"images": np.float32([[0], [320]])}
    for takes_pixels, name in ((False, "images"), (True, "maps")):
        served = version(takes_pixels, **{name: (pb.DT_FLOAT, (-1, 1))})
        assert prepared(served, {name: images["images"]}).rows == 2
    served = version(True, images=(pb.DT_FLOAT, (-1, 1)))
    assert prepared(served, {"images": np.float32([[-64], [319]])}).rows == 2
    assert refused(served, images) == (
        "images[1]: pixels must be in 0..255 (-64 to 319 is accepted), received 320"
    )


def test_inputs_that_are_not_those_of_the_signature():
    """TensorFlow Serving's texts."""
    one = np.float32([1])
    served = version(a=(pb.DT_FLOAT, (-1,)), b=(pb.DT_FLOAT, (-1,)))
    assert refused(served, {"c": one}) == (
        "input size does not match signature: 1!=2 len({c}) != len({a,b}). Sent extra: {c}. "
        "Missing but required: {a,b}."
    )
    assert refused(served, {"a": one, "c": one}) == (
        "Signature input alias: b(feed name: b:0) not found in request and no default value "
        "provided. Inputs expected to be in the request {a,c}, or default input alias set: "
    )
    assert refused(served, {"a": one, "b": np.float16([1])}) == (
        "Expects arg[1] to be float but half is provided"
    )
    for array, shape in ((np.float32(1), ""), (np.ones((1, 2), np.float32), "1,2")):
        assert refused(served, {"a": array, "b": one}) == (
            f"Shape of tensor a [{shape}] is not compatible with expected shape [?]."
        )


def test_requests_without_a_model_or_a_signature():
    with pytest.raises(StatusError, match="^Missing ModelSpec$"):
        prepare_predict(b"", lambda spec: None)
    request = pb.PredictRequest(model_spec=pb.ModelSpec(signature_name="a\n"))
    with pytest.raises(StatusError, match=r'^Serving signature key "a\\n" not found\.$') as caught:
        prepare_predict(request.SerializeToString(), lambda spec: version())
    assert caught.value.code.name == "FAILED_PRECONDITION"
    with pytest.raises(StatusError, match="^$") as caught:
        prepare_predict(b"\x0b", lambda spec: version())
    assert caught.value.code.name == "INTERNAL"


def test_the_response_names_what_was_called():
    called = PreparedCall(SimpleNamespace(name="m", version=3), "s", {}, ("y",), 1)
    response = encode_predict_response(called, {"y": np.float32([[1, 2]])})
    assert response.model_spec == pb.ModelSpec(name="m", version={"value": 3}, signature_name="s")
    assert list(response.outputs["y"].float_val) == [1, 2]

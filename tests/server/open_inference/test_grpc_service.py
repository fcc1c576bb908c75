"""Requests of the gRPC service in every encoding, and hostile ones."""

import gc
import random
import resource
import sys

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.open_inference.grpc_service import encode_infer_response, read_infer_request
from cnnkit.server.open_inference.requests import DATATYPES
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import open_inference_pb2 as v2
from cnnkit.wire.tensors import decode_tensor
from tests.server.open_inference.conftest import IMAGES

INFER = "/inference.GRPCInferenceService/ModelInfer"
METHODS = ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"]
CLIENTS_FAULT = {"INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
CLIENTS_FAULT |= {"RESOURCE_EXHAUSTED"}


def infer(channel, request):
    """Returns the response to a request, or the code and the text of its error."""
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    try:
        return v2.ModelInferResponse.FromString(channel.unary_unary(INFER)(raw, timeout=30))
    except grpc.RpcError as error:
        return error.code().name, error.details()


def request_of(name="colors", raw=None, **tensors):
    """Returns a request; of each input (datatype, shape, contents)."""
    request = v2.ModelInferRequest(model_name=name, raw_input_contents=raw or [])
    for tensor, (datatype, shape, contents) in tensors.items():
        request.inputs.add(name=tensor, datatype=datatype, shape=shape, contents=contents)
    return request


def images_of(raw, datatype="FP32", shape=(2, 8, 8, 3)):
    return request_of(raw=raw, images=(datatype, shape, None))


def test_values_in_lists(channel, predicted):
    contents = v2.InferTensorContents(fp32_contents=IMAGES.reshape(-1))
    found = infer(channel, request_of(images=("FP32", IMAGES.shape, contents)))
    expected = predicted("serving_default")
    assert [one.name for one in found.outputs] == sorted(expected)
    for one, raw in zip(found.outputs, found.raw_output_contents, strict=True):
        assert (one.datatype, list(one.shape)) == ("FP32", list(expected[one.name].shape))
        assert raw == expected[one.name].tobytes()
    found = infer(
        channel,
        request_of(
            "colors:two_inputs",
            a=("FP32", [2], v2.InferTensorContents(fp32_contents=[1.5, np.inf])),
            b=("INT64", [2], v2.InferTensorContents(int64_contents=[2, -(2**62)])),
        ),
    )
    assert found.raw_output_contents[0] == predicted("two_inputs")["sum"].tobytes()


def test_files_in_lists(channel, inputs, predicted):
    contents = v2.InferTensorContents(bytes_contents=inputs["serving_bytes"]["image_bytes"])
    found = infer(channel, request_of("colors:serving_bytes", image_bytes=("BYTES", [2], contents)))
    assert found.raw_output_contents[0] == predicted("serving_bytes")["probabilities"].tobytes()


# The sizes of the protocol's table of data types.
SIZES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2}
SIZES |= {"UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8}


def test_the_data_types_are_the_protocols():
    found = {name: kind.stored and kind.stored.itemsize for name, kind in DATATYPES.items()}
    assert found == {**SIZES, "BYTES": None}


FULL = IMAGES.tobytes()
WRONG = {
    "short": (images_of([FULL[:-1]]), "Input images must have 1536 bytes for its datatype and"),
    "long": (images_of([FULL + b"\0"]), "Input images must have 1536 bytes"),
    # A Predict request of no values would stand for zeros.
    "empty": (images_of([b""]), "Input images must have 1536 bytes for its datatype and shape, "),
    "no values": (images_of(None), "Input images must have 1536 bytes"),
    "two for one": (images_of([FULL, FULL]), "`raw_input_contents` must hold one element for each"),
    "negative": (images_of([FULL], shape=[-2, 8, 8, -3]), "`shape` of input images must have at"),
    "overflow": (images_of([FULL], shape=[2**62, 2**62, 8, 3]), "Input images must have 2041694"),
    "rank": (images_of([FULL], shape=[1] * 65), "`shape` of input images must have at most 64"),
    "flat": (images_of([FULL], shape=[384]), "Shape of tensor images [384] is not compatible"),
    "dtype": (images_of([FULL], "FP64"), "Input images must have 3072 bytes"),
    "dtype 2": (images_of([FULL], "INT32"), "Expects arg[0] to be float but int32 is provided"),
    "no dtype": (images_of([FULL], "float"), "`datatype` must be one of FP32, FP64, INT32"),
    "both": (
        request_of(raw=[FULL], images=("FP32", IMAGES.shape, v2.InferTensorContents())),
        "Input images must have no `contents` beside `raw_input_contents`",
    ),
    "other list": (
        request_of(images=("FP32", [1], v2.InferTensorContents(fp64_contents=[1]))),
        "Input images must have its values in the list `fp32_contents` alone, packed",
    ),
    "half": (
        request_of(images=("FP16", [1], v2.InferTensorContents(fp32_contents=[1]))),
        "Input images of FP16 must be in `raw_input_contents`",
    ),
    "few": (
        request_of(images=("INT32", [3], v2.InferTensorContents(int_contents=[1, 2]))),
        "Input images must have 3 elements for its datatype and shape, received 2",
    ),
    # Not 44, as a conversion would make it.
    "300": (
        request_of(images=("UINT8", [2], v2.InferTensorContents(uint_contents=[1, 300]))),
        "Input images must have values of UINT8, received 300",
    ),
    "bytes": (
        request_of("colors:serving_bytes", [b"\x05\0\0\0ab"], image_bytes=("BYTES", [1], None)),
        "Input image_bytes must have 1 elements of BYTES, each after its length in 4 bytes",
    ),
    "bytes 2": (
        request_of("colors:serving_bytes", [b"\0\0\0\0ab"], image_bytes=("BYTES", [1], None)),
        "Input image_bytes must have 4 bytes for its datatype and shape, received 6",
    ),
    "many": (
        request_of("colors:serving_bytes", [bytes(2**19)], image_bytes=("BYTES", [2**17], None)),
        "Input image_bytes must have 65536 elements of BYTES at most, received 131072",
    ),
    "no name": (request_of(""), "ModelSpec has no name specified."),
}


@pytest.mark.parametrize("case", WRONG)
def test_inconsistent_requests(channel, case):
    request, text = WRONG[case]
    code, found = infer(channel, request)
    assert (code, found[: len(text)]) == ("INVALID_ARGUMENT", text)


def test_inputs_of_one_name_and_parameters(channel):
    request = images_of([FULL, FULL])
    request.inputs.append(request.inputs[0])
    assert infer(channel, request) == ("INVALID_ARGUMENT", "`inputs` must hold images once")
    request = images_of([FULL])
    request.parameters["priority"].int64_param = 1
    assert infer(channel, request).model_version == "2"
    request.parameters["signature_name"].int64_param = 1
    assert infer(channel, request)[1] == "The parameter signature_name must be a text"
    request = images_of([FULL])
    request.inputs[0].parameters["shared_memory_region"].string_param = "x"
    text = "The parameter shared_memory_region of input images is not supported"
    assert infer(channel, request) == ("INVALID_ARGUMENT", text)
    request = images_of([FULL])
    request.outputs.add(name="means").parameters["classification"].int64_param = 3
    text = "The parameter classification of output means is not supported"
    assert infer(channel, request) == ("INVALID_ARGUMENT", text)


def test_random_bytes(channel):
    chance = random.Random(0)
    for method in [*METHODS, "ModelInfer"]:
        path = INFER.replace("ModelInfer", method)
        for _ in range(60):
            raw = chance.randbytes(chance.randrange(300))
            error = channel.unary_unary(path).future(raw, timeout=30).exception()
            assert error is None or error.code().name in CLIENTS_FAULT
    whole = images_of([FULL]).SerializeToString()
    for length in range(0, len(whole), 5):
        code = infer(channel, whole[:length])[0]
        assert code in ("INTERNAL", "INVALID_ARGUMENT")


SHAPES = st.lists(st.one_of(st.integers(-3, 9), st.integers(-(2**63), 2**63 - 1)), max_size=6)


@st.composite
def requests(draw):
    names = st.sampled_from(["images", "image_bytes", "a", "b"]) | st.text(max_size=8)
    request = v2.ModelInferRequest(
        model_name=draw(st.sampled_from(["colors", "colors:serving_bytes", "colors:two_inputs"])),
        model_version=draw(st.sampled_from(["", "2"]) | st.text(max_size=8)),
        raw_input_contents=draw(st.lists(st.binary(max_size=80), max_size=3)),
    )
    for _ in range(draw(st.integers(0, 3))):
        tensor = request.inputs.add(name=draw(names), shape=draw(SHAPES))
        tensor.datatype = draw(st.sampled_from(list(DATATYPES)) | st.text(max_size=5))
        if draw(st.booleans()):
            tensor.contents.int_contents.extend(draw(st.lists(st.integers(-300, 300), max_size=4)))
            tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=4)))
            tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=9), max_size=2)))
    for name in draw(st.lists(names, max_size=2)):
        request.outputs.add(name=name)
    return request


def test_messages_of_any_content(channel):
    @settings(max_examples=300)
    @given(requests())
    def refused_or_answered(request):
        found = infer(channel, request)
        if isinstance(found, tuple):
            assert found[0] in CLIENTS_FAULT
            assert "server's log" not in found[1]
        else:
            assert len(found.raw_output_contents) == len(found.outputs)

    refused_or_answered()


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB")
def test_memory_is_bounded(channel):
    """Requests that would take hundreds of times their bytes are refused before they do."""
    gc.collect()
    huge = [
        images_of([bytes(2**19)], shape=[2**17]),
        images_of([b""], shape=[2**40, 8, 8, 3]),
        request_of(images=("BYTES", [2**19], v2.InferTensorContents(bytes_contents=[b""] * 2**18))),
        request_of(images=("INT32", [2**40], v2.InferTensorContents(int_contents=[0] * 2**19))),
        b"\x2a\0" * 2**18,
        b"\x3a\0" * 2**18,
        b"\x0a\0" * 2**18,
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for request in huge:
        for _ in range(3):
            assert infer(channel, request)[0] in CLIENTS_FAULT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10


def read(request, budget=10**6):
    """Returns the outline of a request, and its inputs as arrays."""
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    outline = v2.ModelInferRequest()
    with MemoryBudget(budget).open() as memory:
        tensors = read_infer_request(raw, outline, memory)
    return outline, {
        name: decode_tensor(pb.TensorProto.FromString(b"".join(pieces))) for name, pieces in tensors
    }


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 2**16 - 1]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [0.5, -2.0]),
        ("FP64", "fp64_contents", [0.1, -2.0]),
        ("BYTES", "bytes_contents", [b"a", b""]),
    ],
)
def test_the_list_of_each_data_type(datatype, field, values):
    """The protocol's table of `InferTensorContents`, with the least and the largest value."""
    contents = v2.InferTensorContents(**{field: values})
    outline, found = read(request_of("m", x=(datatype, [2, 1], contents)))
    assert found["x"].dtype == DATATYPES[datatype].name.replace("string", "object")
    assert found["x"].tolist() == [[value] for value in values]
    assert (outline.model_name, len(outline.inputs)) == ("m", 0)
    other = "fp32_contents" if field != "fp32_contents" else "fp64_contents"
    contents.MergeFrom(v2.InferTensorContents(**{other: [1.0]}))
    with pytest.raises(StatusError, match=f"values in the list `{field}` alone, packed"):
        read(request_of(x=(datatype, [2, 1], contents)))


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [
        ("INT8", "int_contents", -129),
        ("INT8", "int_contents", 128),
        ("INT16", "int_contents", 2**15),
        ("UINT16", "uint_contents", 2**16),
    ],
)
def test_values_beyond_a_data_type(datatype, field, value):
    contents = v2.InferTensorContents(**{field: [1, value]})
    with pytest.raises(StatusError) as caught:
        read(request_of(x=(datatype, [2], contents)))
    assert caught.value.details == f"Input x must have values of {datatype}, received {value}"


def test_a_list_in_two_pieces_is_one():
    contents = v2.InferTensorContents(fp32_contents=[1]).SerializeToString()
    contents += v2.InferTensorContents(fp32_contents=[2]).SerializeToString()
    request = request_of(x=("FP32", [2], v2.InferTensorContents.FromString(contents)))
    whole = request.SerializeToString()
    joined = v2.InferTensorContents(fp32_contents=[1, 2]).SerializeToString()
    begin = whole.index(joined)
    # The lengths of the list, of the input and of the request's piece grow by the second tag.
    grown = bytearray(whole.replace(joined, contents))
    grown[begin - 1] += 2
    grown[1 + whole.index(b"\x2a")] += 2
    assert v2.ModelInferRequest.FromString(bytes(grown)) == request
    assert read(bytes(grown))[1]["x"].tolist() == [1, 2]


def test_the_memory_of_listed_numbers():
    """32 bytes for each, which the message has as one."""
    request = request_of(x=("INT8", [4], v2.InferTensorContents(int_contents=[1, 2, 3, 4])))
    assert read(request, 128)[1]["x"].tolist() == [1, 2, 3, 4]
    with pytest.raises(StatusError, match="Server memory for requests is full"):
        read(request, 127)


def test_contents_twice_and_bytes_that_are_no_message():
    one = v2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32").SerializeToString()
    twice = one + b"\x2a\0\x2a\0"
    with pytest.raises(StatusError, match="Input x must have `contents` once"):
        read(b"\x2a" + bytes([len(twice)]) + twice)
    with pytest.raises(StatusError, match="^$") as caught:
        read(b"\x0b")
    assert caught.value.code.name == "INTERNAL"


def test_the_memory_of_a_response():
    """The values, the message, and its bytes."""
    outline = v2.ModelInferRequest(model_name="m:s", id="7")
    outputs = {"a": np.float32([[1, 2]]), "b": np.array([b"x"], object), "c": np.zeros(99)}
    call = type("Call", (), {"servable": type("Served", (), {"version": 3}), "outputs": ["b", "a"]})
    with MemoryBudget(3 * (8 + 5)).open() as memory:
        found = encode_infer_response(outline, call, outputs, memory)
    assert (found.model_name, found.model_version, found.id) == ("m:s", "3", "7")
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == [
        ("b", "BYTES", [1]),
        ("a", "FP32", [1, 2]),
    ]
    assert found.raw_output_contents[1] == outputs["a"].tobytes()
    with (
        MemoryBudget(3 * (8 + 5) - 1).open() as memory,
        pytest.raises(StatusError, match="Server memory for requests is full"),
    ):
        encode_infer_response(outline, call, outputs, memory)


def test_a_server_that_stops_is_not_ready(server, channel):
    """Its probes are answered, and say so; it is live to its end."""

    def ask(method, request, answer):
        path = INFER.replace("ModelInfer", method)
        raw = channel.unary_unary(path)(request.SerializeToString(), timeout=30)
        return answer.FromString(raw)

    def readiness():
        return (
            ask("ServerReady", v2.ServerReadyRequest(), v2.ServerReadyResponse).ready,
            ask("ModelReady", v2.ModelReadyRequest(name="colors"), v2.ModelReadyResponse).ready,
            ask("ServerLive", v2.ServerLiveRequest(), v2.ServerLiveResponse).live,
        )

    assert readiness() == (True, True, True)
    limiter = server._calls.limiter
    limiter._stopping = True
    try:
        assert readiness() == (False, False, True)
    finally:
        limiter._stopping = False
    unknown = v2.ModelReadyRequest(name="colors", version="9")
    assert not ask("ModelReady", unknown, v2.ModelReadyResponse).ready

"""Outlines of requests, against protobuf's parser of the whole request."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import TensorError
from cnnkit.wire.outline import MAX_FIELDS, MAX_INPUTS, MAX_OUTLINE_BYTES, outline_request
from cnnkit.wire.protobuf import UnreadableError
from cnnkit.wire.tensors import encode_values, to_tensor_proto

VALUES = [field.name for field in pb.TensorProto.DESCRIPTOR.fields if field.name.endswith("_val")]


def request(**tensors):
    return pb.PredictRequest(
        model_spec=pb.ModelSpec(name="m", signature_name="s"),
        inputs=tensors,
        output_filter=["a", "b"],
    )


def without_values(whole):
    stripped = pb.PredictRequest.FromString(whole.SerializeToString())
    for tensor in stripped.inputs.values():
        for name in (*VALUES, "tensor_content"):
            tensor.ClearField(name)
    return stripped


@pytest.mark.parametrize("encode", [to_tensor_proto, encode_values])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint64", "complex64", "bool"])
def test_an_outline_is_the_request_without_its_values(encode, dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    whole = request(x=encode(array), strings=encode(np.array([b"a", b"bc"], object)))
    outline = outline_request(whole.SerializeToString())
    assert outline.request == without_values(whole)
    for name, tensor in whole.inputs.items():
        assert pb.TensorProto.FromString(bytes(outline.tensors[name])) == tensor
    assert outline.cost["x"] >= array.nbytes


@settings(max_examples=100)
@given(st.data())
def test_mutated_requests(data):
    raw = bytearray(
        request(
            x=to_tensor_proto(np.float32([[1, 2]])), n=encode_values(np.int64([3, -4]))
        ).SerializeToString(deterministic=True)
    )
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(1, len(raw))) :]
    try:
        outline = outline_request(bytes(raw))
    except (TensorError, UnreadableError, DecodeError):
        return
    whole = pb.PredictRequest.FromString(bytes(raw))
    assert outline.request.model_spec == whole.model_spec
    assert outline.request.inputs.keys() == whole.inputs.keys() == outline.tensors.keys()
    for name, tensor in whole.inputs.items():
        assert outline.request.inputs[name].dtype == tensor.dtype
        assert outline.request.inputs[name].tensor_shape == tensor.tensor_shape


def field(number, content=b""):
    size = len(content)
    assert size < 2**14
    return bytes([number << 3 | 2, size & 0x7F | 0x80, size >> 7]) + content


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (field(3) * (MAX_FIELDS + 1), f"must have {MAX_FIELDS} fields"),
        (field(2) * (MAX_INPUTS + 1), f"must hold {MAX_INPUTS} tensors"),
        (field(3, bytes(10_000)) * 7, f"must have {MAX_OUTLINE_BYTES} bytes besides"),
        # A tensor of a thousand empty dimensions each takes more memory than the message.
        (field(2, field(2, field(2, field(2, b"") * 5000))) * 5, None),
        # 5000 strings, and 5000 numbers, of a tensor without a shape that holds them.
        (field(2, field(2, field(8) * 5000)), "list of values must not be longer"),
        (field(2, field(2, field(10, bytes(5000)))), "list of values must not be longer"),
        (field(2, field(2, field(5, bytes(5000)))), "list of values must not be longer"),
        (field(2, field(2) * 2), "each tensor once"),
        # Protobuf leaves a pair out whose name is a number.
        (field(2, b"\x08\x07" + field(2)), "pairs of a name and a tensor"),
    ],
)
def test_requests_that_cost_more_than_they_send(raw, text):
    if text is None:
        assert set(outline_request(raw).cost.values()) == {0}
        return
    with pytest.raises(TensorError, match=text):
        outline_request(raw)


def test_bytes_that_are_not_a_message():
    for raw in (b"\x0b", b"\x12\x05a", b"\xff" * 20):
        with pytest.raises((UnreadableError, DecodeError)):
            outline_request(raw)

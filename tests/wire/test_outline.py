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


def tensor(dtype=pb.DT_FLOAT, shape=(), **values):
    made = pb.TensorProto(dtype=dtype, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


REPEATED = 2**24


@pytest.mark.parametrize(
    ("given", "cost"),
    [
        (tensor(shape=[2], tensor_content=bytes(8)), 8),
        (tensor(shape=[2], tensor_content=bytes(3)), 3),
        (tensor(shape=[2], float_val=[1, 2]), 8),
        # Values that are not sent are repeated; a shape that is not valid has none.
        (tensor(shape=[2], float_val=[1]), 4 + REPEATED),
        (tensor(shape=[2]), REPEATED),
        (tensor(shape=[2, -1]), 0),
        (tensor(shape=[0]), 0),
        (tensor(shape=[]), REPEATED),
        # Numbers of one byte and of two: their bytes, and 32 for each.
        (tensor(pb.DT_INT32, [2], int_val=[1, 300]), 3 + 32 * 2),
        # Texts twice, and 100 for each.
        (tensor(pb.DT_STRING, [2], string_val=[b"abc", b""]), 2 * 3 + 100 * 2),
        # Two floats for a complex number.
        (tensor(pb.DT_COMPLEX64, [1], scomplex_val=[1, 2]), 8),
    ],
)
def test_the_memory_of_a_tensor(given, cost):
    outline = outline_request(request(x=given).SerializeToString())
    assert outline.cost == {"x": cost}


def test_a_list_of_twice_the_elements_and_no_more():
    outline_request(request(x=tensor(shape=[2], float_val=[0] * 4)).SerializeToString())
    with pytest.raises(TensorError) as caught:
        outline_request(request(x=tensor(shape=[2], float_val=[0] * 5)).SerializeToString())
    assert str(caught.value) == (
        "The list of values must not be longer than the shape [2] holds. Received: 5."
    )


def test_requests_up_to_their_limits():
    """As many fields, inputs and other bytes as a request may have."""
    assert len(outline_request(field(3) * (MAX_FIELDS // 3)).request.output_filter) == 21845
    names = [field(2, field(1, str(number).encode())) for number in range(MAX_INPUTS)]
    assert len(outline_request(b"".join(names)).tensors) == MAX_INPUTS
    whole = field(3, bytes(9_000)) * 7
    whole += field(3, bytes(MAX_OUTLINE_BYTES - len(whole) - 3))
    assert len(whole) == MAX_OUTLINE_BYTES
    assert len(outline_request(whole).request.output_filter) == 8
    with pytest.raises(
        TensorError, match="must have 65536 bytes besides values of tensors at most"
    ):
        outline_request(whole + field(3))


def test_a_batch_of_files_is_65_536_fields_at_most():
    """With its type and its shape."""
    for count, fits in ((65_534, True), (65_535, False)):
        files = tensor(pb.DT_STRING, [count], string_val=[b""] * count)
        raw = request(x=files).SerializeToString()
        if fits:
            assert outline_request(raw).cost == {"x": 100 * count}
        else:
            with pytest.raises(TensorError, match="`request` must have 65536 fields in a message"):
                outline_request(raw)


def test_a_name_behind_its_tensor_and_a_tensor_without_a_name():
    behind = field(
        2, field(2, tensor(tensor_content=bytes(4)).SerializeToString()) + field(1, b"x")
    )
    outline = outline_request(behind + field(2, field(2, b"\x08\x01")) + field(2))
    assert outline.cost == {"x": 4, "": REPEATED}
    assert outline.request.inputs["x"].dtype == pb.DT_FLOAT

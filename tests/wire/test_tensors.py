"""The tensor codec against bytes by hand and protobuf; tests/integration compares TensorFlow's."""

import ml_dtypes
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import tensors
from cnnkit.wire.dtypes import TensorError
from cnnkit.wire.tensors import (
    decode_tensor,
    decode_tensor_bytes,
    encode_tensor,
    encode_values,
    to_tensor_proto,
)
from tests.helpers.wire_arrays import EXAMPLES, arrays, assert_same
from tests.helpers.wire_bytes import check_against_protobuf, mutated, tensor_fields, varint

MORE_EXAMPLES = settings(max_examples=250, deadline=None)


@EXAMPLES
@given(arrays())
def test_arrays_survive_a_round_trip(array):
    for encode in (to_tensor_proto, encode_values):
        assert_same(decode_tensor(encode(array)), array)
    raw = b"".join(encode_tensor(array))
    assert raw == to_tensor_proto(array).SerializeToString()
    assert_same(decode_tensor_bytes(memoryview(raw)), array)


@MORE_EXAMPLES
@given(tensor_fields())
@example(varint(1, 1))
def test_tensors_of_any_fields(raw):
    check_against_protobuf(lambda whole: decode_tensor_bytes(memoryview(whole)), raw)


@MORE_EXAMPLES
@given(mutated(tensor_fields()))
def test_tensors_with_wrong_bytes(raw):
    check_against_protobuf(lambda whole: decode_tensor_bytes(memoryview(whole)), raw)


def test_a_split_list_is_joined():
    raw = encode_values(np.float32([1, 2, 3])).SerializeToString()
    begin = raw.rindex(b"\x2a\x0c")
    split = raw[:begin] + b"\x2a\x04" + raw[begin + 2 : begin + 6] + b"\x2a\x08" + raw[begin + 6 :]
    assert decode_tensor_bytes(memoryview(split)).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "raw",
    [
        # A double (data type 2) in two halves, and beside one two bytes of complex numbers.
        "0802 1200 3204 00000000 3204 0000f03f",
        "0802 1200 3208 000000000000f03f 6202 0000",
    ],
)
def test_a_part_of_an_element_is_refused_as_by_protobuf(raw):
    raw = bytes.fromhex(raw)
    for read in (pb.TensorProto.FromString, lambda whole: decode_tensor_bytes(memoryview(whole))):
        with pytest.raises(DecodeError):
            read(raw)


def test_tensor_content_by_hand():
    # dtype=DT_INT16, shape (2,), content 0x0102 0xfffe in little-endian order
    raw = bytes.fromhex("080512041202 08022204 0201 feff".replace(" ", ""))
    assert decode_tensor(pb.TensorProto.FromString(raw)).tolist() == [0x0102, -2]


def test_response_by_hand():
    # dtype=DT_FLOAT, shape (1, 2), float_val packed: 1.0, -2.5
    raw = bytes.fromhex("08011208 1202 0801 1202 08022a08 0000803f 000020c0".replace(" ", ""))
    assert decode_tensor(pb.TensorProto.FromString(raw)).tolist() == [[1.0, -2.5]]
    assert encode_values(np.float32([[1, -2.5]])).SerializeToString() == raw


def test_half_and_bfloat16_are_bit_patterns():
    half = pb.TensorProto(dtype=pb.DT_HALF, half_val=[0x3C00, 0xC100])
    half.tensor_shape.dim.add(size=2)
    assert decode_tensor(half).tolist() == [1.0, -2.5]
    brain = pb.TensorProto(dtype=pb.DT_BFLOAT16, half_val=[0x3F80, 0xC020])
    brain.tensor_shape.dim.add(size=2)
    assert decode_tensor(brain).astype(np.float32).tolist() == [1.0, -2.5]


def test_bfloat16_of_the_other_byte_order():
    values = np.array([1, -2.5], ml_dtypes.bfloat16)
    swapped = values.astype(values.dtype.newbyteorder(">"))
    assert swapped.tobytes() == bytes.fromhex("3f80c020")
    # By hand: dtype 14, shape (2,), the upper halves of the float32 in little-endian order.
    assert to_tensor_proto(swapped).SerializeToString() == bytes.fromhex(
        "080e 1204 1202 0802 2204 803f20c0"
    )
    assert b"".join(encode_tensor(swapped)) == to_tensor_proto(swapped).SerializeToString()
    assert list(encode_values(swapped).half_val) == [0x3F80, 0xC020]


def test_bfloat16_without_ml_dtypes_is_float32(monkeypatch):
    monkeypatch.setattr(tensors.importlib.util, "find_spec", lambda name: None)
    for write in (to_tensor_proto, encode_values):
        read = decode_tensor(write(np.array([1, -2.5], ml_dtypes.bfloat16)))
        assert read.dtype == np.float32
        assert read.tolist() == [1.0, -2.5]


def test_the_memory_of_repeated_values_is_limited():
    """A list shorter than the shape repeats its last value; an empty one stands for zeros."""
    for dtype, values, size in (
        (pb.DT_FLOAT, {"float_val": [7]}, 4),
        (pb.DT_DOUBLE, {}, 8),
        (pb.DT_HALF, {"half_val": [0x3C00]}, 2),
        (pb.DT_STRING, {"string_val": [b"x" * 2**20]}, 2**20),
        (pb.DT_STRING, {"string_val": [b"x"]}, 8),
        (pb.DT_INT64, {"int64_val": [1]}, 8),
    ):
        most = 2**24 // size + bool(values)
        for count, fits in ((most, True), (most + 1, False)):
            tensor = pb.TensorProto(dtype=dtype, **values)
            tensor.tensor_shape.dim.add(size=count)
            if fits:
                assert decode_tensor(tensor).shape == (count,)
                continue
            for decode in (decode_tensor, lambda proto: decode_tensor_bytes(
                memoryview(proto.SerializeToString())
            )):  # fmt: skip
                with pytest.raises(TensorError, match="repeat the last value so often"):
                    decode(tensor)


@pytest.mark.parametrize("encode", [to_tensor_proto, encode_values])
@pytest.mark.parametrize(
    ("dtype", "size"), [("f4", 4), ("f2", 2), ("i4", 4), ("u1", 1), ("c8", 8), ("?", 1), ("O", 8)]
)
def test_an_array_as_large_as_is_allowed(encode, dtype, size):
    """Also for each encoding that protobuf has to read; the check comes before the values."""
    array = np.array([b"a", b"b", b""], object) if dtype == "O" else np.arange(3).astype(dtype)
    proto = encode(array)
    raw = memoryview(proto.SerializeToString())
    for decode, message in ((decode_tensor, proto), (decode_tensor_bytes, raw)):
        seen = []

        def note(*told, seen=seen):
            seen.append(told)

        found = decode(message, max_bytes=3 * size, check=note)
        assert found.tolist() == array.tolist()
        assert {(kind.number, shape) for kind, shape in seen} == {(proto.dtype, (3,))}
        with pytest.raises(TensorError, match=f"Expected: {3 * size - 1} bytes at most"):
            decode(message, max_bytes=3 * size - 1)

        def refuse(kind, shape):
            raise TensorError(f"{kind.name} {shape}")

        with pytest.raises(TensorError, match=r" \(3,\)"):
            decode(message, check=refuse)


def test_strings_keep_their_trailing_zeros_and_text_is_utf8():
    assert decode_tensor(to_tensor_proto([b"a\0\0", b"\0"])).tolist() == [b"a\0\0", b"\0"]
    assert decode_tensor(to_tensor_proto("é")).item() == "é".encode()


def test_big_endian_and_strided_arrays():
    array = np.arange(12, dtype=">f2").reshape(3, 4)[:, ::2]
    for write in (to_tensor_proto, encode_values):
        assert decode_tensor(write(array)).tolist() == array.tolist()


def test_bools_are_zero_or_one():
    message = pb.TensorProto(dtype=pb.DT_BOOL, tensor_content=b"\x00\x02")
    message.tensor_shape.dim.add(size=2)
    assert decode_tensor(message).view(np.uint8).tolist() == [0, 1]


def message(dtype=pb.DT_FLOAT, shape=(2,), **fields):
    made = pb.TensorProto(dtype=dtype, **fields)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


def unknown_rank():
    made = pb.TensorProto(dtype=pb.DT_FLOAT)
    made.tensor_shape.unknown_rank = True
    return made


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            message(tensor_content=bytes(7)),
            "`tensor_content` must fill the shape [2]. Expected: 8 bytes. Received: 7 bytes",
        ),
        (
            message(tensor_content=bytes(12)),
            "`tensor_content` must fill the shape [2]. Expected: 8 bytes. Received: 12 bytes",
        ),
        (
            message(float_val=[1, 2, 3]),
            "must not be longer than the shape [2] holds. Expected: 2 at most. Received: 3",
        ),
        (message(shape=(-1,)), "`tensor_shape` must not be negative"),
        (message(shape=(0, -1)), "`tensor_shape` must not be negative"),
        (
            message(shape=(2**40, 2**40), float_val=[1]),
            "must not be larger than the limit of a message",
        ),
        (message(shape=(1,) * 65), "must not have more than 64 dimensions. Received: 65"),
        (message(dtype=20), "Received: data type 20"),
        (message(dtype=0), "Received: data type 0"),
        (
            message(dtype=pb.DT_STRING, tensor_content=b"ab"),
            "`tensor_content` must not hold strings",
        ),
        (
            message(dtype=pb.DT_COMPLEX64, scomplex_val=[1]),
            "must hold pairs of a real and an imaginary part",
        ),
        (unknown_rank(), "`tensor_shape` must be known"),
    ],
)
def test_wrong_messages_are_refused(wrong, text):
    with pytest.raises(TensorError) as caught:
        decode_tensor(wrong)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (np.zeros(2, "datetime64[s]"), "Received: datetime64[s]"),
        (
            [object()],
            "must hold bytes or str in every element, if its dtype is object. Received: object",
        ),
        ([[1], [1, 2]], "different lengths"),
    ],
)
def test_arrays_that_cannot_be_sent(wrong, text):
    with pytest.raises(TensorError, match=".") as caught:
        to_tensor_proto(wrong)
    assert text in str(caught.value)

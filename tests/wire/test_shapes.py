"""Large tensors are checked before protobuf parses them; small ones and honest ones pass."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import shapes
from cnnkit.wire.dtypes import TensorError, wire_type
from cnnkit.wire.protobuf import encode_tag
from cnnkit.wire.shapes import check_lists, count_varints, valid_shape
from cnnkit.wire.tensors import decode_tensor_bytes, encode_values, to_tensor_proto


@pytest.fixture
def unlimited(monkeypatch):
    """All messages count as large."""
    monkeypatch.setattr(shapes, "MAX_UNCHECKED_BYTES", 0)


@pytest.mark.parametrize("write", [to_tensor_proto, encode_values])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "i4", "u1", "?", "c8", "u8", "O"])
def test_honest_tensors_of_every_type_pass(unlimited, write, dtype):
    values = np.arange(6).reshape(2, 3) % 2
    array = values.astype(dtype) if dtype != "O" else np.array([[b"a", b"", b"c" * 300]], object)
    raw = memoryview(write(array).SerializeToString())
    check_lists(raw, 8 * array.size)
    assert decode_tensor_bytes(raw).tolist() == array.tolist()


def test_negative_and_long_integers_are_one_value_each(unlimited):
    array = np.array([-1, 2**62, 300])
    check_lists(memoryview(encode_values(array).SerializeToString()), 24)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        # 4 values in each list, of which one is in the shape.
        (encode_tag(5, 16) + bytes(16), "`float_val` must not be longer .* Received: 4"),
        (b"\x2d0000" * 4, "`float_val` must not be longer .* Received: 4"),
        (encode_tag(7, 4) + bytes(4), "in the list of its type alone"),
        (encode_tag(8, 0) * 4, "in the list of its type alone"),
        (b"\x0b", "must be a plain message. Received: `message` must not contain groups"),
        (encode_tag(5, 16), "must be a plain message. Received: `message` is truncated"),
        (encode_tag(15, 2**17) + bytes(2**17), "so many fields besides its values"),
        (encode_tag(2, 2**17) + b"\x12\x00" * 2**16, "so many fields besides its values"),
    ],
)
def test_more_than_the_shape_is_refused(unlimited, field, text):
    header = bytes.fromhex("0801 1204 12020801")
    check_lists(memoryview(header), 4)
    with pytest.raises(TensorError, match=text):
        check_lists(memoryview(header + field), 4)


def test_a_list_must_fit_in_memory_in_its_own_type(unlimited):
    """Elements of uint8 take four bytes each while protobuf parses them."""
    raw = memoryview(encode_values(np.zeros(8, np.uint8)).SerializeToString())
    check_lists(raw, 32)
    with pytest.raises(TensorError, match="`int_val` must not be longer .* 7 values"):
        check_lists(raw, 31)


def test_many_fields_are_not_read_to_the_end(unlimited, monkeypatch):
    monkeypatch.setattr(shapes, "MAX_FIELDS", 10)
    monkeypatch.setattr(shapes, "MAX_STRINGS", 10)
    header = bytes.fromhex("0807 1204 12020864")
    check_lists(memoryview(header + b"\x42\x00" * 10), 800)
    with pytest.raises(TensorError, match="`string_val` must not be longer"):
        check_lists(memoryview(header + b"\x42\x00" * 11), 800)
    with pytest.raises(TensorError, match="must not have more than 20 fields"):
        check_lists(memoryview(header + b"\x42\x00" * 21), 800)
    # The type and the shape are two.
    check_lists(memoryview(header + b"\x18\x00" * 8), 800)
    with pytest.raises(TensorError, match="so many fields"):
        check_lists(memoryview(header + b"\x18\x00" * 9), 800)


def test_small_messages_are_left_to_protobuf():
    raw = memoryview(b"\x0b" * 10)
    check_lists(raw, 1)
    with pytest.raises(DecodeError):
        decode_tensor_bytes(raw)


def test_shapes_of_arrays():
    proto = pb.TensorProto(dtype=pb.DT_FLOAT)
    assert valid_shape(proto, wire_type(pb.DT_FLOAT), 4) == ()
    proto.tensor_shape.dim.add(size=3)
    assert valid_shape(proto, wire_type(pb.DT_FLOAT), 12) == (3,)
    with pytest.raises(TensorError, match="must not be larger than the limit"):
        valid_shape(proto, wire_type(pb.DT_FLOAT), 11)
    proto.tensor_shape.dim.add(size=-1)
    with pytest.raises(TensorError, match="must not be negative"):
        valid_shape(proto, wire_type(pb.DT_FLOAT), 12)


def test_messages_of_a_mebibyte_are_small():
    raw = memoryview(b"\x0b" * (2**20 + 1))
    check_lists(raw[:-1], 1)
    with pytest.raises(TensorError, match="`raw` of 1,048,577 bytes must be a plain message"):
        check_lists(raw, 1)


def test_shapes_up_to_their_limits():
    """64 sizes, as NumPy has; 8 bytes for a string."""
    proto = pb.TensorProto()
    for _ in range(64):
        proto.tensor_shape.dim.add(size=1)
    assert valid_shape(proto, wire_type(pb.DT_FLOAT), 4) == (1,) * 64
    proto.tensor_shape.dim.add(size=1)
    with pytest.raises(TensorError, match="must not have more than 64 dimensions. Received: 65"):
        valid_shape(proto, wire_type(pb.DT_FLOAT), 4)
    proto = pb.TensorProto()
    proto.tensor_shape.dim.add(size=3)
    assert valid_shape(proto, wire_type(pb.DT_STRING), 24) == (3,)
    with pytest.raises(TensorError, match="Expected: 23 bytes at most. Received: .3.."):
        valid_shape(proto, wire_type(pb.DT_STRING), 23)
    proto.tensor_shape.dim.add(size=0)
    assert valid_shape(proto, wire_type(pb.DT_FLOAT), 0) == (3, 0)


def test_a_shape_of_nothing_needs_no_values(unlimited):
    check_lists(memoryview(bytes.fromhex("0801 1204 12020800")), 0)
    unknown = pb.TensorProto()
    unknown.tensor_shape.unknown_rank = True
    with pytest.raises(TensorError, match="must be known, received unknown_rank"):
        valid_shape(unknown, wire_type(pb.DT_FLOAT), 4)


@pytest.mark.parametrize(
    ("dtype", "field", "one"),
    [
        (pb.DT_COMPLEX64, 9, bytes(4)),
        (pb.DT_COMPLEX128, 12, bytes(8)),
        (pb.DT_FLOAT, 5, bytes(4)),
        (pb.DT_BOOL, 11, b"\x01"),
        (pb.DT_STRING, 8, None),
    ],
)
def test_as_many_values_as_the_shape_has(unlimited, dtype, field, one):
    """Two for a complex number."""
    header = bytes([8, dtype]) + bytes.fromhex("1204 12020803")
    for count in (3, 4, 6, 7):
        if one is None:
            raw = header + encode_tag(field, 0) * count
        else:
            raw = header + encode_tag(field, len(one) * count) + one * count
        if count <= (6 if "COMPLEX" in pb.DataType.Name(dtype) else 3):
            check_lists(memoryview(raw), 1000)
        else:
            with pytest.raises(TensorError, match=f"at most. Received: {count}"):
                check_lists(memoryview(raw), 1000)


def test_varints_are_counted_in_blocks(monkeypatch):
    raw = memoryview(b"\x01\xff\xff\x03\x7f\x80\x00" * 5)
    for size in (1, 2, 3, 7, 100):
        monkeypatch.setattr(shapes, "_BLOCK_BYTES", size)
        assert count_varints(raw) == 4 * 5
    assert count_varints(raw[:0]) == 0


def test_what_is_besides_the_values_has_64_kib(unlimited):
    header = bytes.fromhex("0801")
    for size, fits in ((2**16, True), (2**16 + 1, False)):
        name = bytes(size - 2 - 4)
        raw = memoryview(header + encode_tag(15, len(name)) + name)
        assert len(raw) == size
        if fits:
            check_lists(raw, 4)
        else:
            with pytest.raises(TensorError, match="so many fields besides its values"):
                check_lists(raw, 4)

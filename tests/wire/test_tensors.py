"""The tensor codec against TensorFlow's own, in both directions, and against bytes by hand."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import tensors
from cnnkit.wire.dtypes import WIRE_TYPES, TensorError, type_name, wire_type
from cnnkit.wire.tensors import decode_tensor, encode_tensor, encode_values, to_tensor_proto

NUMERIC = [np.dtype(kind.name) for kind in WIRE_TYPES if kind.name not in ("string", "bfloat16")]
NUMERIC.append(np.dtype(ml_dtypes.bfloat16))
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def arrays(draw):
    """Arrays of any type and shape, from bytes: every bit pattern but NaN, which equals nothing."""
    dtype = draw(st.sampled_from([*NUMERIC, np.dtype(object)]))
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    if dtype.kind == "O":
        flat = np.empty(count, object)
        flat[:] = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        return flat.reshape(shape)
    if dtype.kind == "b":
        return draw(hnp.arrays(bool, shape))
    raw = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    array = np.frombuffer(raw, dtype).reshape(shape).copy()
    if dtype.kind not in "iu":
        # A signalling NaN of half a precision warns when it is only looked at.
        with np.errstate(invalid="ignore"):
            array[np.isnan(array)] = 0
    return array


def same(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if ours.dtype.kind == "O":
        assert ours.tolist() == theirs.tolist()
    else:
        assert ours.tobytes() == theirs.tobytes()


def to_tensorflow(message):
    return tensor_pb2.TensorProto.FromString(message.SerializeToString())


def from_tensorflow(message):
    return pb.TensorProto.FromString(message.SerializeToString())


EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


@EXAMPLES
@given(arrays())
def test_what_we_write_tensorflow_reads(array):
    for message in (to_tensor_proto(array), encode_values(array)):
        theirs = tf.io.parse_tensor(message.SerializeToString(), tf.as_dtype(message.dtype))
        same(np.asarray(theirs.numpy(), array.dtype).reshape(theirs.shape), array)


@EXAMPLES
@given(arrays())
def test_what_tensorflow_writes_we_read(array):
    same(decode_tensor(from_tensorflow(tf.make_tensor_proto(array))), array)
    same(decode_tensor(encode_values(array)), array)
    same(decode_tensor(to_tensor_proto(array)), array)


@pytest.mark.parametrize("kind", WIRE_TYPES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_short_lists_repeat_as_in_tensorflow(kind, count):
    message = pb.TensorProto(dtype=kind.number)
    message.tensor_shape.dim.add(size=2)
    message.tensor_shape.dim.add(size=3)
    values = [b"a", b"bc", b""] if kind.name == "string" else [1, 0, 1]
    per_element = 2 if kind.name.startswith("complex") else 1
    getattr(message, kind.field).extend(values[:count] * per_element)
    theirs = tf.io.parse_tensor(message.SerializeToString(), tf.as_dtype(message.dtype)).numpy()
    same(decode_tensor(message), theirs)


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
            "do not fill its shape [2]. Expected: 8 bytes. Received",
        ),
        (message(tensor_content=bytes(12)), "do not fill its shape"),
        (message(float_val=[1, 2, 3]), "more values than its shape [2] holds"),
        (message(shape=(-1,)), "negative"),
        (message(shape=(0, -1)), "negative"),
        (message(shape=(2**40, 2**40), float_val=[1]), "too large for a message"),
        (message(shape=(1,) * 65), "too many dimensions"),
        (message(dtype=20), "Received: data type 20"),
        (message(dtype=0), "Received: data type 0"),
        (message(dtype=pb.DT_STRING, tensor_content=b"ab"), "Strings cannot be read"),
        (message(dtype=pb.DT_COMPLEX64, scomplex_val=[1]), "lacks an imaginary part"),
        (unknown_rank(), "shape is unknown"),
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
        ([object()], "bytes or str in every element. Received: object"),
        ([[1], [1, 2]], "different lengths"),
    ],
)
def test_arrays_that_cannot_be_sent(wrong, text):
    with pytest.raises(TensorError, match=".") as caught:
        to_tensor_proto(wrong)
    assert text in str(caught.value)


def test_names_of_types():
    assert wire_type(pb.DT_HALF).name == "float16"
    assert type_name(21) == "data type 21"
    for kind in WIRE_TYPES:
        assert tf.as_dtype(kind.number).name == kind.name

"""Serialized tensors and responses for property tests, and protobuf's own parser as the oracle."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import event
from hypothesis import strategies as st

from cnnkit.client import decode
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import tensors
from cnnkit.wire.dtypes import TensorError
from cnnkit.wire.protobuf import UnreadableError, encode_tag
from cnnkit.wire.tensors import encode_values, to_tensor_proto


def by_protobuf(parse, raw):
    """Parses without splitting bytes: protobuf offers each list element by element."""

    def never(*_, **__):
        raise UnreadableError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decode, "split_fields", never)
        patched.setattr(tensors, "split_fields", never)
        return outcome(parse, raw)


def outcome(parse, raw):
    """Returns the parsed values in a form that can be compared, or the class of the error."""
    try:
        # Mutated bytes may claim values that do not fit into a small dtype.
        with np.errstate(all="ignore"):
            return comparable(parse(raw))
    except (TensorError, DecodeError) as error:
        return type(error)


def comparable(value):
    if isinstance(value, np.ndarray):
        # Not the bits: a NaN converted to Python's float may lose some.
        return str(value.dtype), value.shape, repr(value.tolist())
    if isinstance(value, tuple):
        return tuple(map(comparable, value))
    if isinstance(value, dict):
        return {name: comparable(item) for name, item in value.items()}
    return value


def check_against_protobuf(parse, raw):
    found = outcome(parse, raw)
    event(found.__name__ if isinstance(found, type) else "parsed")
    assert found == by_protobuf(parse, raw)


def varint(number, value):
    """A varint field: the wire type in its tag is 0 instead of 2."""
    tag, rest = encode_tag(number, value)[:1], encode_tag(number, value)[1:]
    return bytes([tag[0] & 0xF8]) + rest


@st.composite
def tensor_fields(draw):
    """Fields of a tensor in any order; lists packed or not, split or repeated; unknown fields."""
    floats = st.lists(st.floats(width=32, allow_nan=False), max_size=3)

    def packed(number, dtype):
        return floats.map(
            lambda some: encode_tag(number, 0)[:-1] + sized(np.array(some, dtype).tobytes())
        )

    def sized(content):
        return bytes([len(content)]) + content

    size = st.integers(0, 3).map(lambda n: varint(1, n))
    shape = size.map(lambda dim: encode_tag(2, 2 + len(dim)) + encode_tag(2, len(dim)) + dim)
    one = st.one_of(
        st.sampled_from([1, 1, 1, 2, 3, 7, 8, 10, 19]).map(lambda n: varint(1, n)),
        shape,
        packed(5, "<f4"),
        packed(6, "<f8"),
        packed(9, "<f4"),
        # One unpacked value: wire type 5 with four bytes, or 1 with eight.
        st.binary(min_size=4, max_size=4).map(lambda raw: b"\x2d" + raw),
        st.binary(min_size=8, max_size=8).map(lambda raw: b"\x31" + raw),
        st.binary(max_size=12).map(lambda raw: encode_tag(4, len(raw)) + raw),
        st.binary(max_size=3).map(lambda raw: encode_tag(8, len(raw)) + raw),
        st.integers(0, 300).map(lambda n: varint(7, n)),
        # Field 15 does not exist.
        st.binary(max_size=3).map(lambda raw: encode_tag(15, len(raw)) + raw),
    )
    return b"".join([varint(1, 1), *draw(st.lists(one, max_size=7))])


@st.composite
def mutated(draw, whole):
    """Bytes of which some are changed, inserted, removed, or truncated."""
    raw = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(raw)))
        what = draw(st.sampled_from(["change", "add", "remove", "end"]))
        few = draw(st.binary(min_size=1, max_size=3))
        if what == "end":
            del raw[place:]
        else:
            raw[place : place + (0 if what == "add" else len(few))] = (
                b"" if what == "remove" else few
            )
    return bytes(raw)


@st.composite
def responses(draw):
    """A response with up to two outputs, as tensor_content or as a list."""
    response = pb.PredictResponse()
    response.model_spec.version.value = draw(st.integers(0, 300))
    for name in draw(st.lists(st.sampled_from(["y", "é", ""]), max_size=2)):
        dtype = draw(st.sampled_from(["f4", "f8", "f2", "i8", "u1", "?", "c8", "O"]))
        values = draw(st.lists(st.integers(0, 1), max_size=4))
        array = np.array(values, dtype) if dtype != "O" else np.array([b"a"] * 2, object)
        write = draw(st.sampled_from([to_tensor_proto, encode_values]))
        response.outputs[name].CopyFrom(write(array))
    return response.SerializeToString()

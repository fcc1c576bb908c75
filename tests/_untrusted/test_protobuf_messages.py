"""Protobuf messages of strangers."""

import contextlib
import io

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit._untrusted import protobuf_messages
from cnnkit._untrusted.protobuf_messages import cut_large_fields, read_place
from cnnkit.errors import DataError
from cnnkit.models.weights import caffe_weights_pb2 as schema

LARGE = frozenset({"cnnkit.caffe.Blob.floats"})


def net():
    message = schema.Net(name="net")
    layer = message.layers.add(name="conv1", type="Convolution", bottom=["data"])
    layer.blobs.add(floats=b"12345678").shape.dim.extend([1, 2])
    layer.normalization.alpha = 0.5
    return message


def cut(data):
    return cut_large_fields(io.BytesIO(data), schema.Net(), LARGE, "a.caffemodel")


def test_large_fields_become_places_and_the_rest_stays():
    data = net().SerializeToString()
    found = schema.Net.FromString(cut(data + b"\xfa\x07\x03abc"))  # With a field of no schema.
    start, size = read_place(found.layers[0].blobs[0].floats)
    assert data[start : start + size] == b"12345678"
    found.layers[0].blobs[0].floats = b"12345678"
    assert found == net()


@pytest.mark.parametrize(("name", "limit"), [
    ("MAX_MESSAGE_FIELDS", 5), ("MAX_MESSAGE_BYTES", 10), ("MAX_MESSAGE_DEPTH", 2),
])  # fmt: skip
def test_a_structure_above_a_limit_is_refused(monkeypatch, name, limit):
    monkeypatch.setattr(protobuf_messages, name, limit)
    with pytest.raises(DataError, match="absurdly large structure"):
        cut(net().SerializeToString())


def test_a_structure_at_a_limit_is_read(monkeypatch):
    data = b"\x08\x01" * 6
    monkeypatch.setattr(protobuf_messages, "MAX_MESSAGE_FIELDS", 6)
    assert cut(data) == data
    with pytest.raises(DataError, match="at most 6 fields"):
        cut(data + b"\x08\x01")


@pytest.mark.parametrize(("name", "largest"), [
    ("MAX_MESSAGE_BYTES", 30), ("MAX_MESSAGE_DEPTH", 3),
])  # fmt: skip
def test_bytes_and_depth_at_a_limit_are_read(monkeypatch, name, largest):
    """The texts and numbers of `net`, and a shape in a blob in a layer in it."""
    data = net().SerializeToString()
    monkeypatch.setattr(protobuf_messages, name, largest)
    cut(data)
    monkeypatch.setattr(protobuf_messages, name, largest - 1)
    with pytest.raises(DataError, match=f"at most {largest - 1} "):
        cut(data)


def test_numbers_of_four_and_eight_bytes_stay():
    """Of fields of no schema: the number 200 with 8 bytes, 201 with 4, and a varint of 10."""
    data = b"\xc1\x0c" + b"12345678" + b"\xcd\x0c" + b"1234" + b"\x08" + b"\xff" * 9 + b"\x01"
    assert cut(data) == data
    for short in (b"\xc1\x0c" + b"1234567", b"\xcd\x0c" + b"123", b"\x08" + b"\xff" * 10 + b"\x01"):
        with pytest.raises(DataError, match="is damaged"):
            cut(short)


@pytest.mark.parametrize(
    "data", [b"\0", b"\n\x7fa", b"\n", b"\xff" * 20, b"\x0b", b"\x0d\0", b"\xa2\x06\x02\n\x05"]
)
def test_bytes_that_are_no_message_are_refused(data):
    with pytest.raises(DataError, match="a.caffemodel is damaged"):
        cut(data)


@settings(max_examples=50)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255), end=st.integers(0, 100))
def test_damaged_messages_give_a_value_or_a_clear_error(place, value, end):
    data = bytearray(net().SerializeToString())
    data[place % len(data)] = value
    with contextlib.suppress(DataError, DecodeError):
        schema.Net.FromString(cut(bytes(data[: len(data) - end % 2 * (end % len(data))])))

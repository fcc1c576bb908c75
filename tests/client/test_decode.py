"""Predict responses: the fast parser and protobuf's return the same arrays, or both refuse."""

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cnnkit.client import TensorSpec, decode
from cnnkit.client.decode import LayoutCache, decode_predict_response
from cnnkit.client.expected import ExpectedOutputs
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import TensorError
from cnnkit.wire.tensors import encode_values, to_tensor_proto
from tests.helpers.wire_bytes import (
    by_protobuf,
    check_against_protobuf,
    mutated,
    outcome,
    responses,
)

EXAMPLES = settings(max_examples=250, deadline=None)


@EXAMPLES
@given(mutated(responses()))
def test_responses_with_wrong_bytes(raw):
    check_against_protobuf(decode_predict_response, raw)


@EXAMPLES
@given(st.binary(max_size=40))
def test_any_bytes(raw):
    check_against_protobuf(decode_predict_response, raw)


def test_arrays_belong_to_the_caller():
    array = np.full((2, 3), 1, np.float32)
    raw = pb.PredictResponse(
        outputs={"y": encode_values(array), "z": to_tensor_proto(array[0])}
    ).SerializeToString(deterministic=True)
    for _ in range(2):
        found = decode_predict_response(raw)[1]
        assert found["y"].tolist() == array.tolist() and found["z"].tolist() == array[0].tolist()
        found["y"] += 1
        found["z"] += 1


def test_the_last_of_two_outputs_with_one_name_counts():
    first, last = (
        pb.PredictResponse(outputs={"y": to_tensor_proto(np.float32([value]))}).SerializeToString()
        for value in (1, 2)
    )
    assert decode_predict_response(first + last)[1]["y"].tolist() == [2]


@EXAMPLES
@given(st.data())
def test_responses_after_another_with_the_same_layout(data):
    first = data.draw(responses())
    cache = LayoutCache()
    outcome(cache.decode, first)
    layout = cache.layouts.get(len(first))
    event("a layout is cached" if layout is not None else "no layout")

    def check(raw):
        assert outcome(cache.decode, raw) == by_protobuf(decode_predict_response, raw)

    check(data.draw(mutated(st.just(first))))
    # The same bytes except for the values, and then except for one bit anywhere.
    raw = bytearray(first)
    if layout is not None:
        for place in layout.places:
            raw[place.begin : place.end] = np.random.default_rng(0).bytes(place.end - place.begin)
    check(bytes(raw))
    if raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    check(bytes(raw))


def test_a_layout_is_cached_and_arrays_belong_to_the_caller():
    cache = LayoutCache()
    arrays = [np.full((2, 3), value, np.float32) for value in (1, 2)]
    raws = [
        pb.PredictResponse(
            outputs={"y": encode_values(array), "z": to_tensor_proto(array[0])}
        ).SerializeToString(deterministic=True)
        for array in arrays
    ]
    for raw, array in zip(raws, arrays, strict=True):
        found = cache.decode(raw)[1]
        assert found["y"].tolist() == array.tolist() and found["z"].tolist() == array[0].tolist()
        found["y"] += 1
    assert len(cache.layouts) == 1
    assert cache.decode(raws[1])[1]["y"].tolist() == arrays[1].tolist()


@pytest.mark.parametrize(
    ("array", "write"),
    [
        (np.array([True, False]), to_tensor_proto),
        (np.array([True, False]), encode_values),
        (np.float16([1, 2]), encode_values),
        (np.uint8([1, 2]), encode_values),
        (np.array([b"a"], object), to_tensor_proto),
    ],
)
def test_no_layout_if_values_are_not_an_arrays_bytes(array, write):
    raw = pb.PredictResponse(outputs={"y": write(array)}).SerializeToString()
    cache = LayoutCache()
    cache.decode(raw)
    assert not cache.layouts


@pytest.mark.parametrize(
    "values",
    [
        # One number for two elements, and numbers of a list that is not this type's.
        pb.TensorProto(float_val=[0]),
        pb.TensorProto(double_val=[0]),
    ],
    ids=["short", "another list"],
)
def test_no_layout_if_values_are_omitted(values):
    values.dtype = pb.DT_FLOAT
    values.tensor_shape.dim.add(size=2)
    raw = pb.PredictResponse(outputs={"y": values}).SerializeToString()
    cache = LayoutCache()
    assert cache.decode(raw)[1]["y"].tolist() == [0, 0]
    assert not cache.layouts


def test_no_layout_of_a_response_with_much_besides_values():
    response = pb.PredictResponse(outputs={"y": to_tensor_proto(np.float32([1]))})
    cache = LayoutCache()
    cache.decode(response.SerializeToString())
    assert cache.layouts.pop(len(response.SerializeToString()))
    response.model_spec.name = "m" * 10_000
    cache.decode(response.SerializeToString())
    assert not cache.layouts


def test_the_number_of_layouts_is_limited():
    cache = LayoutCache()
    for size in range(1, 200):
        raw = pb.PredictResponse(outputs={"y": to_tensor_proto(np.zeros(size))}).SerializeToString()
        cache.decode(raw)
        assert len(cache.layouts) == (size - 1) % 64 + 1


def test_responses_of_so_many_outputs():
    """4,096 outputs at most, of which a small message is still read by protobuf."""
    output = pb.PredictResponse(outputs={"y": to_tensor_proto(np.zeros(1))}).SerializeToString()
    frame = output[output.index(b"y") + 1 :]
    for count in (4096, 4097):
        names = [f"{number:04}".encode() for number in range(count)]
        raw = b"".join(
            b"\x0a" + bytes([output[1] + 3]) + b"\x0a\x04" + name + frame for name in names
        )
        assert len(decode_predict_response(raw)[1]) == count
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(decode, "MAX_UNCHECKED_BYTES", len(raw) - 1)
            if count == 4096:
                assert len(decode_predict_response(raw)[1]) == count
            else:
                with pytest.raises(TensorError, match="must be a plain message. Received: .*4,096"):
                    decode_predict_response(raw)
            patched.setattr(decode, "MAX_UNCHECKED_BYTES", len(raw))
            assert len(decode_predict_response(raw)[1]) == count


def test_layouts_of_responses_that_are_large_are_not_looked_for(monkeypatch):
    """A layout takes a comparison of all values; what is besides them is kept up to 4,096 bytes."""
    response = pb.PredictResponse(outputs={"y": to_tensor_proto(np.zeros(2))})
    raw = response.SerializeToString()
    for most, found in ((len(raw), 1), (len(raw) - 1, 0)):
        monkeypatch.setattr(decode, "_MAX_LAYOUT_BYTES", most)
        cache = LayoutCache()
        cache.decode(raw)
        assert len(cache.layouts) == found
    monkeypatch.undo()
    for size, found in ((4096, 1), (4097, 0)):
        response.model_spec.name = ""
        response.model_spec.name = "m" * (size - len(response.SerializeToString()) + 16 - 4)
        whole = response.SerializeToString()
        response.model_spec.name += "m" * (size - len(whole) + 16)
        whole = response.SerializeToString()
        assert len(whole) == size + 16
        cache = LayoutCache()
        cache.decode(whole)
        assert len(cache.layouts) == found


def test_a_layout_of_other_outputs_is_not_used():
    raw = pb.PredictResponse(outputs={"y": to_tensor_proto(np.zeros(2))}).SerializeToString()
    cache = LayoutCache()
    cache.decode(raw)
    with pytest.raises(TensorError, match="must hold all that were asked for"):
        cache.decode(raw, ExpectedOutputs({"y": TensorSpec("float64", (2,)), "z": None}))


def test_no_layout_of_an_output_without_a_name():
    """Or with two of them, of which protobuf takes the last; or without a tensor."""
    tensor = to_tensor_proto(np.float32([1])).SerializeToString()
    value, key = b"\x12" + bytes([len(tensor)]) + tensor, b"\x0a\x01y"
    for entry, found in (
        (value, {"": [1]}),
        (b"\x0a\x01x" + key + value, {"y": [1]}),
        (key + b"\x12\x00" + value, {"y": [1]}),
    ):
        cache = LayoutCache()
        for _ in range(2):
            outputs = cache.decode(b"\x0a" + bytes([len(entry)]) + entry)[1]
            assert {name: array.tolist() for name, array in outputs.items()} == found
        assert not cache.layouts

"""The fast readers of bytes against protobuf's own: the same arrays, or both refuse."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from cnnkit.client import decode as reading
from cnnkit.client.decode import decode_predict_response
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import tensors
from cnnkit.wire.dtypes import TensorError
from cnnkit.wire.protobuf import UnreadableError, encode_tag, find_field
from cnnkit.wire.tensors import decode_tensor_bytes, encode_values, to_tensor_proto

EXAMPLES = settings(max_examples=250, deadline=None)


def by_protobuf(read, raw):
    """Reads without the fast way: each list element by element, as protobuf offers it."""

    def never(*_):
        raise UnreadableError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "find_field", never)
        patched.setattr(reading, "_forms", {})
        patched.setattr(tensors, "find_field", never)
        return outcome(read, raw)


def outcome(read, raw):
    """Returns what was read as values that can be compared, or the kind of refusal."""
    try:
        # Mutated bytes may claim values that do not go into a small type.
        with np.errstate(all="ignore"):
            return readable(read(raw))
    except (TensorError, DecodeError) as error:
        return type(error)


def readable(value):
    if isinstance(value, np.ndarray):
        # Not the bits: a NaN that goes through Python's float may lose some.
        return str(value.dtype), value.shape, repr(value.tolist())
    if isinstance(value, tuple):
        return tuple(map(readable, value))
    if isinstance(value, dict):
        return {name: readable(item) for name, item in value.items()}
    return value


def check(read, raw):
    found = outcome(read, raw)
    event(found.__name__ if isinstance(found, type) else "read")
    assert found == by_protobuf(read, raw)


def varint(number, value):
    """A field with a number: its tag says so with the type 0 instead of 2."""
    tag, rest = encode_tag(number, value)[:1], encode_tag(number, value)[1:]
    return bytes([tag[0] & 0xF8]) + rest


@st.composite
def fields(draw):
    """The fields of a tensor in any order, lists packed and not, split, repeated, or not ours."""
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
        # One value, unpacked: the type 5 of four bytes, or 1 of eight.
        st.binary(min_size=4, max_size=4).map(lambda raw: b"\x2d" + raw),
        st.binary(min_size=8, max_size=8).map(lambda raw: b"\x31" + raw),
        st.binary(max_size=12).map(lambda raw: encode_tag(4, len(raw)) + raw),
        st.binary(max_size=3).map(lambda raw: encode_tag(8, len(raw)) + raw),
        st.integers(0, 300).map(lambda n: varint(7, n)),
        # Field 15, which is nobody's.
        st.binary(max_size=3).map(lambda raw: encode_tag(15, len(raw)) + raw),
    )
    return b"".join([varint(1, 1), *draw(st.lists(one, max_size=7))])


@st.composite
def mutated(draw, whole):
    """Bytes with some of them changed, put in, taken out, or cut off."""
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
def answers(draw):
    """A response with one or two outputs, as content or as a list."""
    response = pb.PredictResponse()
    response.model_spec.version.value = draw(st.integers(0, 300))
    for name in draw(st.lists(st.sampled_from(["y", "é", ""]), max_size=2)):
        dtype = draw(st.sampled_from(["f4", "f8", "f2", "i8", "u1", "?", "c8", "O"]))
        values = draw(st.lists(st.integers(0, 1), max_size=4))
        array = np.array(values, dtype) if dtype != "O" else np.array([b"a"] * 2, object)
        write = draw(st.sampled_from([to_tensor_proto, encode_values]))
        response.outputs[name].CopyFrom(write(array))
    return response.SerializeToString()


@EXAMPLES
@given(fields())
@example(varint(1, 1))
def test_tensors_of_any_fields(raw):
    check(lambda whole: decode_tensor_bytes(memoryview(whole)), raw)


@EXAMPLES
@given(mutated(fields()))
def test_tensors_with_wrong_bytes(raw):
    check(lambda whole: decode_tensor_bytes(memoryview(whole)), raw)


@EXAMPLES
@given(mutated(answers()))
def test_answers_with_wrong_bytes(raw):
    check(decode_predict_response, raw)


@EXAMPLES
@given(st.data())
def test_answers_after_another_of_the_same_form(data):
    first = data.draw(answers())
    outcome(decode_predict_response, first)
    form = reading._forms.get(len(first))
    event("a form that is kept" if form is not None else "none")
    check(decode_predict_response, data.draw(mutated(st.just(first))))
    # The same bytes but for the values, and but for one bit anywhere.
    raw = bytearray(first)
    if form is not None:
        for place in form.places:
            raw[place.begin : place.end] = np.random.default_rng(0).bytes(place.end - place.begin)
    check(decode_predict_response, bytes(raw))
    if raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    check(decode_predict_response, bytes(raw))


def test_a_form_is_kept_and_its_values_are_the_callers_own():
    reading._forms.clear()
    arrays = [np.full((2, 3), value, np.float32) for value in (1, 2)]
    raws = [
        pb.PredictResponse(
            outputs={"y": encode_values(array), "z": to_tensor_proto(array[0])}
        ).SerializeToString(deterministic=True)
        for array in arrays
    ]
    for raw, array in zip(raws, arrays, strict=True):
        found = decode_predict_response(raw)[1]
        assert found["y"].tolist() == array.tolist() and found["z"].tolist() == array[0].tolist()
        found["y"] += 1
    assert len(reading._forms) == 1
    assert decode_predict_response(raws[1])[1]["y"].tolist() == arrays[1].tolist()


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
def test_no_form_of_what_is_not_an_arrays_bytes(array, write):
    raw = pb.PredictResponse(outputs={"y": write(array)}).SerializeToString()
    reading._forms.clear()
    decode_predict_response(raw)
    assert not reading._forms


@pytest.mark.parametrize(
    "values",
    [
        # One number for two elements, and numbers of a list that is not this type's.
        pb.TensorProto(float_val=[0]),
        pb.TensorProto(double_val=[0]),
    ],
    ids=["short", "another list"],
)
def test_no_form_of_values_that_do_not_stand_there(values):
    values.dtype = pb.DT_FLOAT
    values.tensor_shape.dim.add(size=2)
    raw = pb.PredictResponse(outputs={"y": values}).SerializeToString()
    reading._forms.clear()
    assert decode_predict_response(raw)[1]["y"].tolist() == [0, 0]
    assert not reading._forms


def test_no_form_of_an_answer_with_much_else_in_it():
    response = pb.PredictResponse(outputs={"y": to_tensor_proto(np.float32([1]))})
    reading._forms.clear()
    decode_predict_response(response.SerializeToString())
    assert reading._forms.pop(len(response.SerializeToString()))
    response.model_spec.name = "m" * 10_000
    decode_predict_response(response.SerializeToString())
    assert not reading._forms


def test_so_many_forms_are_kept_and_no_more():
    for size in range(1, 200):
        raw = pb.PredictResponse(outputs={"y": to_tensor_proto(np.zeros(size))}).SerializeToString()
        decode_predict_response(raw)
    assert 0 < len(reading._forms) <= 64


@EXAMPLES
@given(st.binary(max_size=40))
def test_any_bytes(raw):
    check(decode_predict_response, raw)


def test_an_output_that_comes_twice_is_the_last_one():
    first, last = (
        pb.PredictResponse(outputs={"y": to_tensor_proto(np.float32([value]))}).SerializeToString()
        for value in (1, 2)
    )
    assert decode_predict_response(first + last)[1]["y"].tolist() == [2]


def test_parts_of_a_list_are_one_list():
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


def test_what_is_not_taken_stays():
    raw = b"\x08\x01" + b"\x12\x02ab" + b"\x1d1234" + b"\x22\x01c" + b"\x12\x00"
    taken, rest = find_field(memoryview(raw), {2})
    assert [bytes(piece) for piece in taken[2]] == [b"ab", b""]
    assert rest == b"\x08\x01" + b"\x1d1234" + b"\x22\x01c"


@pytest.mark.parametrize("raw", [b"\x08", b"\x12\x05ab", b"\x0b", b"\xff" * 11, b"\x1d12"])
def test_cut_off_or_strange(raw):
    with pytest.raises(UnreadableError):
        find_field(memoryview(raw), {2})

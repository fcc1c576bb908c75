"""Pickles of strangers: nothing that they name is called."""

import collections
import io
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit._untrusted import pickles
from cnnkit._untrusted.pickled_arrays import decode_array, is_array
from cnnkit._untrusted.pickles import Made, Name, Persistent, read_pickle
from cnnkit.errors import CnnkitError, DataError


def read(data):
    return read_pickle(io.BytesIO(data), "x.npy").content


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [
    None, True, -1, 2**70, 0.5, "café", b"\xff", [1, [2]], (1, (2, 3), (), (4, 5, 6, 7)),
    {"a": {"b": 1.5}}, collections.OrderedDict(a=1), [[]] * 3,
], ids=str)  # fmt: skip
def test_containers_and_numbers_are_read_as_they_were_written(value, protocol):
    found = read(pickle.dumps(value, protocol))
    # Older protocols write bytes as a call of a codec.
    if value == b"\xff" and protocol < 3:
        assert found.path == "_codecs.encode"
    else:
        assert found == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "f2", "i8", "u1", "i2", "u4", "?"])
def test_arrays_are_made_from_their_own_bytes(dtype, protocol):
    array = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
    found = read(pickle.dumps({"a": array}, protocol))["a"]
    if protocol == 5:  # NumPy writes the buffer itself, by another function.
        return
    assert is_array(found)
    decoded = decode_array(found, "x.npy")
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_called(tmp_path, protocol):
    import os

    marker = tmp_path / "ran"
    found = read(pickle.dumps([Evil(os.mkdir, (str(marker),)), Evil(eval, ("1/0",))], protocol))
    assert all(isinstance(one, Made) for one in found) and not marker.exists()
    assert found[1].arguments == ("1/0",)


def array_of(shape, dtype, data, order=False):
    made = Made("numpy.core.multiarray._reconstruct", (Name("numpy.ndarray"), (0,), b"b"))
    made.state = (1, shape, dtype, order, data)
    return made


def dtype(code, order="<", *more):
    return Made("numpy.dtype", (code, False, True), (3, order, *(more or (None,) * 3), -1, -1, 0))


@pytest.mark.parametrize("made", [
    array_of((1,), dtype("O8", "|"), b"\x41" * 8),
    array_of((1,), dtype("f4", "<", None, ("a",), {"a": 1}), b"1234"),
    array_of((1,), dtype("V8"), b"12345678"),
    array_of((2,), dtype("f4"), b"1234"),
    array_of((1 << 60,), dtype("f4"), b""),
    array_of((0, 1 << 60), dtype("f4"), b""),
    array_of((-1, -1), dtype("f4"), b"1234"),
    array_of((True,), dtype("f4"), b"1234"),
    array_of([1], dtype("f4"), b"1234"),
    array_of((1,) * 40, dtype("f4"), b"1234"),
    array_of((1,), dtype("f4"), 4),
    array_of((1,), dtype("f4"), "\u1234"),
    array_of((1,), "f4", b"1234"),
    array_of((1,), dtype(5), b"1234"),
    array_of((1,), dtype("f4", "x"), b"1234"),
    array_of((1,), dtype("f4", "<", ("f4", (1,)), None, None), b"1234"),
    array_of((1,), dtype("f4"), Made("_codecs.encode", ("1234", "utf-8"))),
])  # fmt: skip
def test_an_array_of_anything_but_numbers_is_refused(made):
    """An array of objects over bytes would take eight of them for the address of an object."""
    with pytest.raises(DataError, match=r"^x.npy"):
        decode_array(made, "x.npy")


def test_an_array_has_at_most_32_axes_and_its_type_is_named():
    found = decode_array(array_of((1,) * 32, dtype("f4"), bytes(4)), "x.npy")
    assert found.shape == (1,) * 32
    with pytest.raises(DataError, match="absurd shape"):
        decode_array(array_of((1,) * 33, dtype("f4"), bytes(4)), "x.npy")
    with pytest.raises(DataError, match="other things than numbers. Received: the type 'O8'"):
        decode_array(array_of((1,), dtype("O8", "|"), bytes(8)), "x.npy")
    with pytest.raises(DataError, match="Received: an unknown type"):
        decode_array(array_of((1,), dtype(5), b"1234"), "x.npy")


def test_the_state_of_an_array_must_be_whole():
    with pytest.raises(DataError):
        decode_array(Made("numpy.core.multiarray._reconstruct"), "x.npy")


def binput(index):
    return b"r" + struct.pack("<I", index)


@pytest.mark.parametrize(("data", "message"), [
    (b"\x80\x02}" + binput(0xFFFFFFFF) + b"j" + struct.pack("<I", 5) + b".", "KeyError"),
    (b"\x80\x02\x8e" + struct.pack("<Q", 1 << 50) + b".", "absurd length"),
    (b"\x80\x02" + b"0" * 10 + b".", "damaged"),
    (b"\x80\x02\x85.", "with an empty stack"),
    # The mark hides what is below it.
    (b"\x80\x02K\x01(\x85.", "with an empty stack"),
    (b"\x80\x02K\x01K\x02a.", "that appends to no list"),
    (b"\x80\x02K\x01K\x02K\x03s.", "that sets entries of no dictionary"),
    (b"\x80\x02}(K\x01u.", "that sets entries of no dictionary"),
    (b"\x80\x02cx\ny\nK\x01R.", "with a call without arguments"),
    (b"\x80\x02K\x01K\x02\x93.", "with a name that is not text"),
    (b"\x80\x02\x82\x01.", "another kind.*EXT1"),
    (b"\x80\x02}])s.", "keys of another kind.*list"),
    (b"\x80\x02})K\x01s.", "keys of another kind.*tuple"),
    (pickle.dumps({1 << 61: 1}, 2), "keys of another kind.*int"),
    (b"\x80\x02", "damaged"),
    (b"", "damaged"),
    (b"(((((.", "damaged"),
    (b"\x80\x02K\x01a.", "damaged"),
    (b"c" + b"x" * 100_000, "long line"),
    (b"I" + b"1" * 10_000 + b"\n.", "damaged"),
])  # fmt: skip
def test_absurd_pickles_are_refused(data, message):
    with pytest.raises(DataError, match=message):
        read(data)


def test_keys_are_texts_numbers_and_small_integers():
    small = (1 << 60) - 1
    found = {"a": 1, b"b": 2, None: 3, True: 4, small: 5, -small: 6, 0.5: 7}
    assert read(pickle.dumps(found, 3)) == {
        **{k: v for k, v in found.items() if k != 0.5},
        "0.5": 7,
    }
    for key in (1 << 60, -(1 << 60)):
        with pytest.raises(DataError, match="keys of another kind.*int"):
            read(pickle.dumps({key: 1}, 2))


@pytest.mark.parametrize(("data", "expected"), [
    (pickle.dumps({7}, 2), "__builtin__.set"), (pickle.dumps({7}, 4), [7]),
    (pickle.dumps(frozenset({7}), 4), [7]),
    (b"K\x05(K\x011.", 5), (b"K\x01K\x020.", 1), (b"K\x05(0.", 5), (b"K\x012\x86.", (1, 1)),
    (b"(cm\nC\nK\x01o.", "m.C"), (b"(K\x01im\nC\n.", "m.C"),
    (pickle.dumps(collections.defaultdict(int, a=1), 2), {"a": 1}),
])  # fmt: skip
def test_rare_steps_are_those_of_pythons_machine(data, expected):
    """Sets as lists of their items; what is called is named with its arguments."""
    found = read(data)
    if isinstance(expected, str):
        assert (found.path, found.arguments) == (expected, ([7],) if "set" in expected else (1,))
    else:
        assert found == expected


def test_a_large_index_of_the_memo_costs_no_memory():
    assert read(b"\x80\x02}" + binput(0xFFFFFFF0) + b".") == {}


def test_the_number_of_steps_is_limited(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_PICKLE_STEPS", 100)
    assert read(b"(" + b"N" * 90 + b"l.") == [None] * 90
    with pytest.raises(DataError, match="absurdly long pickle"):
        read(b"(" + b"N" * 200 + b"l.")
    # A mark, the items, a list and the end, of which the first one counts as none.
    data = b"(" + b"N" * 98 + b"l."
    assert read(data) == [None] * 98
    with pytest.raises(DataError, match="at most 100 steps"):
        read(b"(" + b"N" * 99 + b"l.")
    assert read_pickle(io.BytesIO(data), "x", max_bytes=100).content == [None] * 98
    with pytest.raises(DataError, match="in 99 bytes"):
        read_pickle(io.BytesIO(data), "x", max_bytes=99)


def test_two_pickles_in_a_row_and_persistent_objects():
    file = io.BytesIO(pickle.dumps(1) + pickle.dumps(2) + b"\x80\x02X\x01\0\0\0aQ." + b"rest")
    assert [read_pickle(file, "x").content for _ in range(3)] == [1, 2, Persistent("a")]
    assert file.read() == b"rest"


def test_dictionaries_of_python_2_and_objects_with_entries():
    # collections.OrderedDict([["a", 1]]) as Python 2 writes it.
    data = b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x01ee\x85R."
    assert read(data) == {"a": 1}
    made = read(b"\x80\x02cm\nC\n)\x81}U\x01aK\x01sb.")
    assert (made.path, made.state) == ("m.C", {"a": 1})


VALID = pickle.dumps({"conv1": {"weights": np.zeros((2, 2), "f4"), "b": [1, "x"]}}, 2)


@settings(max_examples=100)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3),
    cut=st.integers(0, 10**4),
)
def test_damaged_pickles_give_a_value_or_a_clear_error(changes, cut):
    data = bytearray(VALID)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        found = read(bytes(data[: len(data) - cut % 2 * (cut % len(data))]))
        decode_array(found["conv1"]["weights"], "x")
    except (CnnkitError, KeyError, TypeError, AttributeError):
        pass

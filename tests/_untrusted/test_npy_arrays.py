"""NumPy's files of strangers."""

import contextlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit._untrusted.npy_arrays import load_npy, load_npz, map_npy, open_npz
from cnnkit.errors import CnnkitError, DataError


def header(text, version=1):
    text = text.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 * version, "little") + text


def described(descr, shape):
    return header(repr({"descr": descr, "fortran_order": False, "shape": shape}))


@pytest.mark.parametrize("array", [
    np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(1.5),
    np.zeros((0, 3), np.float16), np.array([True]), np.arange(3).astype(">i4"),
], ids=str)  # fmt: skip
def test_arrays_are_read_as_they_were_saved(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    np.savez_compressed(tmp_path / "x.npz", x=array, names=np.array(["cat", "dog"]))
    for read in (
        load_npy(tmp_path / "x.npy", max_bytes=100),
        map_npy(tmp_path / "x.npy"),
        load_npz(tmp_path / "x.npz", max_bytes=1000)["x"],
    ):
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    assert load_npz(tmp_path / "x.npz", max_bytes=1000)["names"].tolist() == ["cat", "dog"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (described("<f4", (1 << 40,)) + bytes(8), "incomplete"),
        (described("<f4", (3,)) + bytes(11), "incomplete"),
        (described("|O", ()) + b"N.", "not an array of"),
        (described("<U0", (10**12,)), "not an array of"),
        (described("<f4", (0, 10**15)), "incomplete"),
        (described("<f4", (-1,)), "absurd shape"),
        (described("<f4", (True,)) + bytes(4), "absurd shape"),
        (described("<f4", (1,) * 60) + bytes(4), "absurd shape"),
        (described([("a", "<f4")], (1,)) + bytes(4), "not an array of"),
        (described("<c8", (1,)) + bytes(8), "not an array of"),
        (header("(" * 9000), "damaged"),
        (header("{}"), "damaged"),
        (b"\x93NUMPY\x02\0" + (1 << 31).to_bytes(4, "little"), "absurd header"),
        (b"\x93NUMPY\x09\0", "unknown version"),
        (b"\x93NUM", "damaged"),
        (b"", "damaged"),
    ],
)  # fmt: skip
def test_absurd_headers_are_refused(tmp_path, data, message):
    (tmp_path / "x.npy").write_bytes(data)
    for read in (lambda p: load_npy(p, max_bytes=100), map_npy):
        with pytest.raises(DataError, match=message):
            read(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", data)
    with pytest.raises(DataError, match=message):
        open_npz(tmp_path / "x.npz", kinds="biuf")


def test_arrays_above_the_limit_of_the_caller_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(10))
    np.savez(tmp_path / "x.npz", a=np.zeros(6), b=np.zeros(6))
    with pytest.raises(DataError, match="too large.*at most 79 bytes.*80"):
        load_npy(tmp_path / "x.npy", max_bytes=79)
    with pytest.raises(DataError, match="too large.*at most 95 bytes.*96"):
        load_npz(tmp_path / "x.npz", max_bytes=95)
    assert load_npy(tmp_path / "x.npy", max_bytes=80).shape == (10,)
    assert load_npz(tmp_path / "x.npz", max_bytes=96).keys() == {"a", "b"}


def test_headers_and_shapes_at_their_limits_are_read(tmp_path):
    for text in (
        described("<f4", (1,) * 32) + bytes(4),
        described("<f4", (0, 1 << 16)),
        header(repr({"descr": "<f4", "fortran_order": False, "shape": ()}).ljust(9999), version=2)
        + bytes(4),
    ):
        (tmp_path / "x.npy").write_bytes(text)
        assert not load_npy(tmp_path / "x.npy", max_bytes=4).any()
    for text, message in (
        (described("<f4", (1,) * 33) + bytes(4), "absurd shape"),
        (described("<f4", (0, (1 << 16) + 1)), "incomplete"),
        (header(" " * 10_000, version=2), "absurd header.*at most 10,000 bytes.*10,001"),
    ):
        (tmp_path / "x.npy").write_bytes(text)
        with pytest.raises(DataError, match=message):
            load_npy(tmp_path / "x.npy", max_bytes=4)


def test_arrays_of_more_than_a_mebibyte_are_read_in_pieces(tmp_path):
    values = np.arange(300_000, dtype=np.float64)
    np.save(tmp_path / "x.npy", values)
    np.testing.assert_array_equal(load_npy(tmp_path / "x.npy", max_bytes=1 << 22), values)


def test_an_array_that_changed_since_its_header_was_read_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(6))
    arrays = open_npz(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", a=np.zeros(7))
    with pytest.raises(DataError, match="a in .*x.npz has changed"):
        arrays.read("a")


def test_a_member_with_fewer_numbers_than_it_states_is_damaged(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", described("<f4", (3,)) + bytes(8))
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24
    size = int.from_bytes(data[place : place + 4], "little") + 4
    data[place : place + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="a in .*x.npz is damaged or incomplete"):
        open_npz(path).read("a")


def test_an_archive_has_arrays_only(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.txt", "a")
    with pytest.raises(DataError, match="x.txt in .* is not an array"):
        open_npz(tmp_path / "x.npz")


@settings(max_examples=50)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.integers(0, 300))
def test_damaged_arrays_give_a_value_or_a_clear_error(tmp_path_factory, place, value, cut):
    buffer = io.BytesIO()
    np.save(buffer, np.arange(12.0).reshape(3, 4))
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(data[: len(data) - cut % 2 * cut])
    for read in (lambda: load_npy(path, max_bytes=1000), lambda: map_npy(path)):
        with contextlib.suppress(CnnkitError):
            read()

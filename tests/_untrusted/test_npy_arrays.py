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

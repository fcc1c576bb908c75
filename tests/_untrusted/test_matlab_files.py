import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from cnnkit._untrusted.limits import MAX_MAT_BYTES
from cnnkit._untrusted.matlab_files import read_structures
from cnnkit.errors import DataError

FIELDS = ("ID", "WNID")
ROWS = [(1, "n01440764"), (300, "n01443537"), (70_000, "ñ")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table of SciPy's writer, plain and compressed, beside other arrays."""
    folder = tmp_path_factory.mktemp("mat")
    table = np.array([(*row, 2.5) for row in ROWS], [(name, "O") for name in (*FIELDS, "more")])
    arrays = {"before": np.eye(3), "synsets": table}
    for name, compressed in (("plain.mat", False), ("packed.mat", True)):
        savemat(folder / name, arrays, do_compression=compressed)
    return folder


def big_endian_table(number=7, rows=1):
    """A table in the other byte order: one structure with a number."""

    def element(kind, content):
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    def matrix(kind, sizes, name, *rest):
        flags = element(6, struct.pack(">II", kind, 0))
        dims = element(5, struct.pack(f">{len(sizes)}i", *sizes))
        return element(14, flags + dims + element(1, name) + b"".join(rest))

    value = matrix(6, (1, 1), b"", element(9, struct.pack(">d", number)))
    names = struct.pack(">HHI", 4, 5, 8) + element(1, b"ID".ljust(8, b"\0"))
    return bytes(124) + b"\1\0MI" + matrix(2, (rows, 1), b"t", names, value)


@pytest.mark.parametrize("name", ["plain.mat", "packed.mat"])
def test_tables_are_read_as_they_were_written(files, name):
    assert read_structures(files / name, "synsets", FIELDS) == ROWS
    assert read_structures(files / name, "synsets", ["more"]) == [(2.5,)] * 3


def test_a_structure_of_the_other_byte_order(tmp_path):
    (tmp_path / "a.mat").write_bytes(big_endian_table())
    assert read_structures(tmp_path / "a.mat", "t", ["ID"]) == [(7.0,)]


def test_what_is_no_table_is_refused(files, tmp_path):
    with pytest.raises(DataError, match="no array of structures 'before'"):
        read_structures(files / "plain.mat", "before", FIELDS)
    with pytest.raises(DataError, match="damaged"):
        read_structures(files / "plain.mat", "synsets", ["nothing"])
    for lie, message in (
        ({"number": float("nan")}, "nan is not a finite number"),
        ({"rows": 2}, "1 values of 2 structures"),
    ):
        (tmp_path / "a.mat").write_bytes(big_endian_table(**lie))
        with pytest.raises(DataError, match=f"damaged.*{message}"):
            read_structures(tmp_path / "a.mat", "t", ["ID"])
    whole = big_endian_table()
    # A small element of 5 bytes, and an element that goes on behind the end.
    small = whole.replace(b"\0\4\0\5", b"\0\5\0\5")
    for data, message in (
        (small, "a small element of 5 bytes"),
        (whole[:-1], "exceeds the file"),
    ):
        (tmp_path / "a.mat").write_bytes(data)
        with pytest.raises(DataError, match=f"damaged.*{message}"):
            read_structures(tmp_path / "a.mat", "t", ["ID"])
    (tmp_path / "a.mat").write_bytes(bytes(200))
    with pytest.raises(DataError, match="not a MATLAB file"):
        read_structures(tmp_path / "a.mat", "synsets", FIELDS)


def test_a_bomb_is_not_unfolded(files, tmp_path):
    head = (files / "plain.mat").read_bytes()[:128]
    packed = zlib.compress(bytes(MAX_MAT_BYTES + 1))
    (tmp_path / "a.mat").write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(DataError, match="unfolds to more than"):
        read_structures(tmp_path / "a.mat", "synsets", FIELDS)


@settings(max_examples=200)
@given(st.data())
def test_damaged_tables_give_a_value_or_a_clear_error(files, tmp_path_factory, data):
    whole = bytearray((files / "plain.mat").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 4))
        number = data.draw(st.sampled_from([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x10000000, 64]))
        whole[place : place + 4] = struct.pack("<I", number)
    file = tmp_path_factory.getbasetemp() / "damaged.mat"
    file.write_bytes(whole[: data.draw(st.integers(len(whole) // 2, len(whole)))])
    try:
        rows = read_structures(file, "synsets", FIELDS)
    except DataError:
        return
    assert len(rows) < 1000

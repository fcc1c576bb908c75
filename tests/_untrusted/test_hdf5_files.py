"""HDF5 files of strangers."""

import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit._untrusted import hdf5_files
from cnnkit._untrusted.hdf5_files import open_hdf5, read_text_attribute, read_text_attributes
from cnnkit.errors import CnnkitError, DataError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.h5"


def refused(path, message):
    with pytest.raises(DataError, match=message) as caught, open_hdf5(path):
        pass
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("options", [
    {}, {"compression": "gzip"}, {"chunks": (3, 5)},
    {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (7, 3)},
], ids=str)  # fmt: skip
def test_datasets_are_read_as_they_were_written(path, options):
    values = np.arange(100, dtype=np.float32).reshape(10, 10)
    with h5py.File(path, "w") as file:
        file.create_dataset("a/b", data=values, **options)
        file.create_dataset("scalar", data=3)
        file.create_dataset("empty", data=np.zeros((0, 3)))
    with open_hdf5(path) as file:
        np.testing.assert_array_equal(file["a/b"][...], values)


def test_other_files_are_never_opened(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(400))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (100,), "f4", external=[(str(secret), 0, 400)])
    refused(path, "/x of .* lies in other files")
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((100,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "x", (100,))
        file.create_virtual_dataset("x", layout)
    refused(path, "/x of .* lies in other files")
    for link in (h5py.ExternalLink(str(secret), "/x"), h5py.SoftLink("/y")):
        with h5py.File(path, "w") as file:
            file["x"] = link
        refused(path, "a link to another file or place.*/x")


def test_cycles_depth_and_numbers_of_groups_are_limited(path, monkeypatch):
    with h5py.File(path, "w") as file:
        file["a/b"] = file.create_group("c")
        file["c/a"] = file["a"]
    refused(path, "two links to one object")
    with h5py.File(path, "w") as file:
        file.create_group("/".join("a" * 60))
    refused(path, "too many groups inside each other.*at most 50")
    for depth in (50, 51):
        with h5py.File(path, "w") as file:
            file.create_group("/".join("a" * depth))
        if depth == 50:
            with open_hdf5(path):
                pass
    refused(path, "too many groups inside each other.*51")
    monkeypatch.setattr(hdf5_files, "MAX_HDF5_OBJECTS", 5)
    with h5py.File(path, "w") as file:
        for n in range(6):
            file.create_group(str(n))
    refused(path, "too many groups and datasets")
    with h5py.File(path, "w") as file:
        for n in range(4):
            file.create_group(str(n)).attrs["a"] = n
        file.attrs["b"] = 1
    # With the file itself five objects, and five attributes.
    with open_hdf5(path):
        pass
    with h5py.File(path, "a") as file:
        file["0"].attrs["c"] = 1
    refused(path, "too many attributes. Expected: at most 5. Received: 6")


def test_other_objects_and_datasets_without_a_shape_are_refused(path):
    with h5py.File(path, "w") as file:
        file["kind"] = np.dtype("f4")
    refused(path, "neither a group nor a dataset.*/kind")
    with h5py.File(path, "w") as file:
        file["x"] = h5py.Empty("f4")
    refused(path, "/x of .* has no shape")
    # Numbers of 16 bits that NumPy does not know, as those of bfloat16.
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3, "V2")
    with open_hdf5(path) as file:
        assert file["x"].dtype.itemsize == 2
    for kind in ("V3", np.longdouble):
        with h5py.File(path, "w") as file:
            file["x"] = np.zeros(3, kind)
        refused(path, "/x of .* is not an array of numbers")


def test_chunks_are_limited_in_number(path, monkeypatch):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(100), chunks=(10,))
    monkeypatch.setattr(hdf5_files, "MAX_HDF5_CHUNKS", 10)
    with open_hdf5(path):
        pass
    monkeypatch.setattr(hdf5_files, "MAX_HDF5_CHUNKS", 9)
    refused(path, "too many chunks. Expected: at most 9. Received: 10")


@pytest.mark.parametrize(("data", "options"), [
    (np.array([b"text"]), {}), (np.zeros(3, [("a", "f4")]), {}), (np.zeros(3, complex), {}),
    (["text"], {"dtype": h5py.string_dtype()}),
], ids=["bytes", "record", "complex", "text"])  # fmt: skip
def test_datasets_are_numbers(path, data, options):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=data, **options)
    refused(path, "/x of .* is not an array of numbers")


def test_datasets_that_state_more_than_is_stored_are_refused(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 40,), "f4")
    refused(path, "not wholly stored")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 10,))
    refused(path, "absurd size")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (100, 100), "f4", chunks=(10, 10))[0, 0] = 1
    refused(path, "not wholly stored.*100 chunks.*1")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 20, 32), "f4", data=np.zeros((1 << 20, 32)), compression=9)
    refused(path, "absurd size.*134,217,728")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (3,), "f4", maxshape=(None,), chunks=(1 << 26,), compression=9)[
            :
        ] = 1
    refused(path, "absurdly large chunks")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (3,), "f4", data=[1, 2, 3], compression="lzf")
    refused(path, "compressed in a way that is not read")


def test_a_chunk_that_unfolds_to_more_than_its_size_is_refused(path):
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", (1000,), "f4", chunks=(1000,), compression="gzip")
        x.id.write_direct_chunk((0,), zlib.compress(bytes(40_000)))
    refused(path, "does not unfold to 4,000 bytes")
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", (1000,), "f4", chunks=(1000,), compression="gzip")
        x.id.write_direct_chunk((0,), bytes(9000))
    refused(path, "chunk of an absurd size")


def test_attributes_are_texts_of_a_limited_size(path, monkeypatch):
    with h5py.File(path, "w") as file:
        file.attrs["config"] = "x" * 100_000
        file.attrs["names"] = [b"a", b"b"]
        file.attrs["fixed"] = np.bytes_(b"abc")
        file.attrs["number"] = np.zeros(3)
        file.attrs["bad"] = np.bytes_(b"\xff")
        file.attrs["none"] = h5py.Empty("S1")
        file.attrs["empty"] = np.array([], "S1")
    with open_hdf5(path) as file:
        assert len(read_text_attribute(file, "config", path)) == 100_000
        assert read_text_attributes(file, "names", path) == ["a", "b"]
        assert read_text_attribute(file, "fixed", path) == "abc"
        assert read_text_attribute(file, "missing", path) == ""
        assert read_text_attributes(file, "none", path) == []
        assert read_text_attributes(file, "empty", path) == []
        for name in ("number", "bad", "names"):
            with pytest.raises(DataError, match=f"attribute {name}"):
                read_text_attribute(file, name, path)


def test_what_is_no_hdf5_file_is_refused(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    refused(path, "not an HDF5 file")


@settings(max_examples=50)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 10**4),
)
def test_damaged_files_give_a_value_or_a_clear_error(tmp_path_factory, changes, cut):
    path = tmp_path_factory.getbasetemp() / "damaged.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a/b", data=np.arange(8.0), compression="gzip")
        file["a"].attrs["name"] = "x"
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data[: len(data) - cut % 2 * (cut % len(data))])
    try:
        with open_hdf5(path) as file:
            assert np.shape(file["a/b"][...]) is not None
            read_text_attribute(file["a"], "name", path)
    # HDF5's own reading of numbers fails as it likes: callers wrap it in `damage_as_error`.
    except (CnnkitError, OSError, KeyError, ValueError, RuntimeError):
        pass

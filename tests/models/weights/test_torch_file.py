"""Files of `torch.save`, of others: nothing in them runs, and nothing in them grows."""

import io
import os
import pickle
import struct
import subprocess
import zipfile

import numpy as np
import pytest

from cnnkit._untrusted import limits
from cnnkit._untrusted.pickles import Made
from cnnkit.errors import UsageError
from cnnkit.models.weights import torch_file
from cnnkit.models.weights.torch_file import describe, read_torch_file


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def saved(path, content, **members):
    data = content if isinstance(content, bytes) else pickle.dumps(content, 2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, value in members.items():
            archive.writestr(f"archive/data/{name}", value)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pth"


@pytest.mark.parametrize(
    "call",
    [
        Call(os.system, "touch ran"),
        Call(subprocess.call, ["touch", "ran"]),
        Call(eval, "open('ran', 'w')"),
        Call(getattr, Call(__import__, "os"), "system"),
        Call(np.load, "ran"),
    ],
    ids=lambda call: call.call[0].__name__,
)
def test_functions_are_not_called(tmp_path, path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    found = read_torch_file(saved(path, {"x": call, "y": 1}))
    assert isinstance(found.entries["x"], Made) and found.entries["y"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["a.pth"]


def test_arrays_and_containers_are_read(path):
    content = {
        "a": {"b": np.arange(6.0).reshape(2, 3)},
        "c": ("x", 3),
        "names": np.array(["x", None]),
    }
    found = read_torch_file(saved(path, content)).entries
    np.testing.assert_array_equal(found["a.b"], content["a"]["b"])
    assert found["c"] == ("x", 3)
    assert describe(found["names"]).endswith("_reconstruct")


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x05", b"\x80\x02}q\x00(X", b"I1\n."[:2]])
def test_damaged_pickles_are_named(path, content):
    with pytest.raises(UsageError, match=r"a.pth is damaged or incomplete"):
        read_torch_file(saved(path, content))


def test_one_dictionary_in_many_places_is_not_read_endlessly(path):
    """Sixty dictionaries, each twice in the next: 500 bytes, and 2 ** 60 entries."""
    data = b"\x80\x02}q\0"
    for n in range(60):
        data += b"}(U\x01ah" + bytes([n]) + b"U\x01bh" + bytes([n]) + b"uq" + bytes([n + 1])
    with pytest.raises(UsageError, match="absurdly many or deep entries"):
        read_torch_file(saved(path, data + b"."))


def test_a_dictionary_within_itself_is_read_once(path):
    content = {"a": 1}
    content["self"] = content
    assert read_torch_file(saved(path, content)).entries == {"a": 1}


def test_the_hash_of_a_tuple_is_never_computed(path):
    """Sixty pairs, each of the one before: their hash takes 2 ** 60 steps."""
    data = b"\x80\x02)q\0"
    for n in range(60):
        data += b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1])
    with pytest.raises(UsageError, match="keys of another kind"):
        read_torch_file(saved(path, data + b"}h\x3cNs."))


def test_a_pickle_larger_than_its_limit_is_refused(path, monkeypatch):
    monkeypatch.setattr(torch_file, "MAX_TORCH_PICKLE_BYTES", 1000)
    assert limits.MAX_TORCH_PICKLE_BYTES > 1000
    with pytest.raises(UsageError, match="absurd"):
        read_torch_file(saved(path, {"a": "x" * 2000}))


def old_format(elements):
    file = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, file, 2)
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x02NtQ"
    file.write(
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\0K\x02\x85K\x01\x85\x89}tRs."
    )
    pickle.dump(["0"], file, 2)
    return file.getvalue() + struct.pack("<Q", elements) + struct.pack("<2f", 1, 2)


def test_the_older_format_is_read_and_its_lengths_are_checked(path):
    path.write_bytes(old_format(2))
    found = read_torch_file(path)
    assert found.reader(found.entries["a"])(slice(None)).tolist() == [1, 2]
    path.write_bytes(old_format(1 << 60))
    with pytest.raises(UsageError, match="damaged or incomplete"):
        read_torch_file(path)

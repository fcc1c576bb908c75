"""Pickles of others: nothing in them runs."""

import io
import os
import pickle
import subprocess
from collections import OrderedDict

import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models.weights.unpickle import ALLOWED, ArrayUnpickler, Unread


def read(content: bytes):
    return ArrayUnpickler(io.BytesIO(content)).read("a.pkl")


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(5))
def test_arrays_and_containers_are_read(protocol):
    content = OrderedDict(a=[np.arange(6.0).reshape(2, 3)], b=("x", 3, {1.5: None}))
    found = read(pickle.dumps(content, protocol))
    np.testing.assert_array_equal(found["a"][0], content["a"][0])
    assert found["b"] == content["b"]


@pytest.mark.parametrize("protocol", range(6))
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
def test_functions_are_not_called(tmp_path, monkeypatch, protocol, call):
    monkeypatch.chdir(tmp_path)
    found = read(pickle.dumps({"x": call, "y": 1}, protocol))
    assert isinstance(found["x"], Unread)
    assert found["y"] == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [*ALLOWED, "os.system", "cnnkit.models.weights.unpickle.Unread"])
def test_a_pickle_cannot_change_what_the_next_one_uses(path):
    """The instruction BUILD sets attributes of whatever lies on the stack, also of a function."""
    module, _, name = path.rpartition(".")
    # GLOBAL, then the state (None, {"mark": 1}), whose second part is set by setattr.
    with pytest.raises(UsageError, match="damaged"):
        read(f"c{module}\n{name}\n(N}}(Vmark\nI1\nutb.".encode())
    assert not hasattr(Unread, "mark")
    assert not any(hasattr(function, "mark") for function in (*ALLOWED.values(), os.system))


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x05", b"\x80\x02}q\x00(X", b"I1\n."[:2]])
def test_damaged_pickles_are_named(content):
    with pytest.raises(UsageError, match="a.pkl is damaged or incomplete"):
        read(content)

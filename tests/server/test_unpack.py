"""Compressed messages are unpacked within limits."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.server.memory_budget import MemoryBudget
from cnnkit.server.status_error import StatusError
from cnnkit.server.unpack import unpack_message

LARGE = 3 * 2**20


def unpacked(raw, budget=2**30, most=LARGE):
    with MemoryBudget(budget).open() as memory:
        return unpack_message(raw, memory, most)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bytes])
@pytest.mark.parametrize("size", [0, 1, 2**20, LARGE])
def test_messages_are_unpacked(pack, size):
    assert unpacked(pack(b"\n" * size)) == b"\n" * size


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_bombs_are_refused(pack):
    bomb = pack(bytes(LARGE + 1))
    for limits, text in [({}, "larger than max"), ({"budget": 2**20}, "memory for requests")]:
        with pytest.raises(StatusError, match=text) as caught:
            unpacked(bomb, **limits)
        assert caught.value.code.name == "RESOURCE_EXHAUSTED"


@settings(max_examples=50)
@given(st.data())
def test_damaged_messages(data):
    raw = bytearray(data.draw(st.sampled_from([gzip.compress, zlib.compress]))(b"cnnkit" * 20))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(1, len(raw))) :]
    try:
        assert len(unpacked(bytes(raw))) <= LARGE
    except StatusError as error:
        assert error.code.name in ("INTERNAL", "RESOURCE_EXHAUSTED")

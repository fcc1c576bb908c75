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


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_truncated_messages_and_the_last_byte_of_memory(pack):
    packed = pack(b"cnnkit" * 100)
    for length in (3, len(packed) // 2, len(packed) - 1):
        with pytest.raises(
            StatusError, match="^The message cannot be decompressed: the "
        ) as caught:
            unpacked(packed[:length])
        assert (caught.value.code.name, caught.value.http_status) == ("INTERNAL", 400)
    with pytest.raises(StatusError, match="^The message cannot be decompressed: Error -3"):
        unpacked(packed[:2] + b"\xff" * 40)
    assert len(unpacked(packed, budget=600, most=600)) == 600
    with pytest.raises(StatusError, match="^Server memory for requests is full$"):
        unpacked(packed, budget=599)
    with pytest.raises(
        StatusError, match=r"^Decompressed message larger than max \(599\)$"
    ) as caught:
        unpacked(packed, most=599)
    assert caught.value.http_status == 413


def test_messages_that_only_begin_like_packed_ones():
    """As the first bytes of zlib, if the two were a multiple of 31."""
    for raw in (b"x", b"x\x02", b"\x1f", b"\x1f\x8c" + bytes(30)):
        assert unpacked(raw) == raw

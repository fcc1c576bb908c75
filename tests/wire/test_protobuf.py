"""The splitting of messages into fields."""

import pytest

from cnnkit.wire.protobuf import TooManyFieldsError, UnreadableError, encode_tag, split_fields


def test_fields_that_are_not_taken_stay():
    raw = b"\x08\x01" + b"\x12\x02ab" + b"\x1d1234" + b"\x22\x01c" + b"\x12\x00"
    taken, rest = split_fields(memoryview(raw), {2})
    assert [bytes(piece) for piece in taken[2]] == [b"ab", b""]
    assert rest == b"\x08\x01" + b"\x1d1234" + b"\x22\x01c"


@pytest.mark.parametrize("raw", [b"\x08", b"\x12\x05ab", b"\x0b", b"\xff" * 11, b"\x1d12"])
def test_truncated_messages_and_groups_are_unreadable(raw):
    with pytest.raises(UnreadableError):
        split_fields(memoryview(raw), {2})


@pytest.mark.parametrize(
    ("number", "size", "tag"), [(1, 0, "0a00"), (4, 300, "22ac02"), (16, 127, "82017f")]
)
def test_tags_by_hand(number, size, tag):
    assert encode_tag(number, size).hex() == tag


def test_a_message_has_as_many_fields_as_are_allowed():
    raw = memoryview(b"\x08\x01" * 3)
    assert split_fields(raw, {2}, most=3) == ({}, bytes(raw))
    with pytest.raises(TooManyFieldsError, match="must not have more than 2 fields"):
        split_fields(raw, {2}, most=2)

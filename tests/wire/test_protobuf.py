"""The splitting of messages into fields."""

import pytest

from cnnkit.wire.protobuf import (
    TooManyFieldsError,
    UnreadableError,
    encode_tag,
    find_fields,
    split_fields,
)


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


def test_fields_of_every_kind_up_to_their_last_byte():
    """Wire types 0, 1, 2 and 5; field 16 has a tag of two bytes, and -1 a number of ten."""
    negative = b"\xff" * 9 + b"\x01"
    fields = [b"\x08" + negative, b"\x11" + bytes(8), b"\x82\x01\x02ab", b"\x1d" + bytes(4)]
    raw = b"".join(fields)
    assert list(find_fields(memoryview(b"?" + raw + b"?"), 1, 1 + len(raw))) == [
        (1, 1, 0, 12),
        (2, 12, 0, 21),
        (16, 21, 24, 26),
        (3, 26, 0, 31),
    ]
    for field in fields:
        for length in range(1, len(field)):
            with pytest.raises(UnreadableError, match="^`message` is truncated$"):
                list(find_fields(memoryview(field + b"?" * 20), 0, length))
            with pytest.raises(UnreadableError, match="^`message` is truncated$"):
                list(find_fields(memoryview(field[:length]), 0, length))
    # The least tag of two bytes.
    assert list(find_fields(memoryview(b"\x80\x01\x05"), 0, 3)) == [(16, 0, 0, 3)]
    with pytest.raises(UnreadableError, match="must not contain numbers of more than 64 bits"):
        list(find_fields(memoryview(b"\x08" + b"\xff" * 10 + b"\x01"), 0, 12))


def test_fields_are_taken_by_number_and_only_with_a_length():
    raw = b"\x10\x05" + b"\x12\x01a" + b"\x1a\x01b" + b"\x12\x01c"
    taken, rest = split_fields(memoryview(raw), {2, 3, 4})
    assert {number: list(map(bytes, found)) for number, found in taken.items()} == {
        2: [b"a", b"c"],
        3: [b"b"],
    }
    assert rest == b"\x10\x05"

"""Messages taken apart and put together by their bytes, where protobuf would copy them often.

The elements of a tensor travel as one piece: `tensor_content`, or a packed list of floats, which on
the wire is an array's bytes too. Element by element, as protobuf's Python offers such lists, the
150,000 floats of one image cost milliseconds.
"""

from __future__ import annotations

import functools
from collections.abc import Container

# What can stand in a message: a number, a fixed number of bytes, or a length and that many bytes.
_NUMBER, _EIGHT, _SIZED, _FOUR = 0, 1, 2, 5
_FIXED = {_EIGHT: 8, _FOUR: 4}


class UnreadableError(ValueError):
    """Bytes that are no message, or one of a kind that is left to protobuf."""


def iter_fields(message: memoryview, place: int, end: int) -> list[tuple[int, int, int, int]]:
    """Returns where the fields of a message are.

    Args:
        message: Bytes that hold the message.
        place: Where in them it begins.
        end: Where it ends.

    Returns:
        Of each field its number, where it begins, where its content begins (0 if it has no length),
        and where it ends.

    Raises:
        UnreadableError: The bytes end too early, or hold what no message of today does.

    Example:
        >>> iter_fields(memoryview(bytes.fromhex("0801 2a04 0000803f")), 0, 8)
        [(1, 0, 0, 2), (5, 2, 4, 8)]
    """
    found = []
    while place < end:
        begin, content = place, 0
        # Nearly every tag is one byte.
        tag = message[place]
        if tag < 0x80:
            place += 1
        else:
            tag, place = _number(message, place)
        kind = tag & 7
        if kind == _SIZED:
            size, content = _number(message, place)
            place = content + size
        elif kind == _NUMBER:
            _, place = _number(message, place)
        elif kind in _FIXED:
            place += _FIXED[kind]
        else:
            raise UnreadableError("a group")
        if place > end:
            raise UnreadableError("cut off")
        found.append((tag >> 3, begin, content, place))
    return found


def find_field(
    message: memoryview, numbers: Container[int]
) -> tuple[dict[int, list[memoryview]], bytes]:
    """Parts a message into the fields wanted and the message that remains.

    Args:
        message: Its bytes.
        numbers: The numbers of the fields; those of them that have a length are taken out.

    Returns:
        The contents of these fields by number, in their order, and the other fields as they are.

    Raises:
        UnreadableError: As of `fields`.

    Example:
        >>> raw = bytes.fromhex("0801 2a04 0000803f")  # dtype float32, float_val 1.0
        >>> taken, rest = find_field(memoryview(raw), {5})
        >>> taken[5][0].hex(), rest.hex()
        ('0000803f', '0801')
    """
    taken: dict[int, list[memoryview]] = {}
    rest = []
    for number, begin, content, end in iter_fields(message, 0, len(message)):
        if content and number in numbers:
            taken.setdefault(number, []).append(message[content:end])
        else:
            rest.append(message[begin:end])
    return taken, b"".join(rest)


@functools.lru_cache(maxsize=1024)
def encode_tag(number: int, size: int) -> bytes:
    """Returns what stands before the content of a field: its tag and its length.

    Example:
        >>> encode_tag(4, 300).hex()
        '22ac02'
    """
    return _varint(number << 3 | _SIZED) + _varint(size)


def _varint(value: int) -> bytes:
    """Returns a number as protobuf writes it, seven bits a byte, the lowest first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _number(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while message[place] & 0x80:
            value |= (message[place] & 0x7F) << shift
            shift += 7
            place += 1
            if shift > 63:
                raise UnreadableError("a number of more than 64 bits")
        return value | message[place] << shift, place + 1
    except IndexError:
        raise UnreadableError("cut off") from None

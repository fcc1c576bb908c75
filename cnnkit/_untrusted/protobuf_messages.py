"""Binary protobuf messages: counted and measured before they are parsed, large fields cut out.

The parser of protobuf makes an object of a hundred bytes for a message of two, and copies the
bytes of large fields. What is parsed here is the message without the content of its large fields;
each of them holds its place in the file instead, from which NumPy reads it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from cnnkit._untrusted.limits import (
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_DEPTH,
    MAX_MESSAGE_FIELDS,
)
from cnnkit.errors import DataError

VARINT, EIGHT_BYTES, DELIMITED, FOUR_BYTES = 0, 1, 2, 5
PLACE = struct.Struct("<QQ")
MAX_VARINT_BYTES = 10


def read_place(field: bytes) -> tuple[int, int]:
    """Return the first byte and the number of bytes of a field that `cut_large_fields` cut out."""
    start, size = PLACE.unpack(field)
    return start, size


def cut_large_fields(
    file: BinaryIO, message: Message, large: frozenset[str], origin: str | Path
) -> bytes:
    """Return the message in a file, with its large fields replaced by their places.

    Args:
        file: The file, which is one message.
        message: A message of its type.
        large: Full names of the fields of bytes to cut out, for `read_place`.
        origin: The file, for messages.

    Raises:
        DataError: If it is not such a message; or has more than `MAX_MESSAGE_FIELDS` fields,
            `MAX_MESSAGE_BYTES` bytes beside the large fields, or `MAX_MESSAGE_DEPTH` messages
            inside each other.
    """
    size = file.seek(0, os.SEEK_END)
    descriptor: Any = message.DESCRIPTOR
    return _Cutter(file, large, origin).message(descriptor, 0, size, 0)


class _Cutter:
    """One pass over a file."""

    def __init__(self, file: BinaryIO, large: frozenset[str], origin: str | Path) -> None:
        self.file, self.large, self.origin = file, large, origin
        self.fields = self.bytes = 0

    def message(self, descriptor: Descriptor, start: int, size: int, depth: int) -> bytes:
        """Return the message at a place of the file without its large fields."""
        if depth > MAX_MESSAGE_DEPTH:
            raise self.absurd(f"at most {MAX_MESSAGE_DEPTH} messages inside each other")
        self.file.seek(start)
        end = start + size
        parts: list[bytes] = []
        while (place := self.file.tell()) < end:
            self.fields += 1
            if self.fields > MAX_MESSAGE_FIELDS:
                raise self.absurd(f"at most {MAX_MESSAGE_FIELDS:,} fields")
            tag = self.varint()
            field = descriptor.fields_by_number.get(tag >> 3)
            kind = tag & 7
            if not tag >> 3:
                raise self.damaged()
            if kind == DELIMITED:
                length = self.varint()
                content = self.file.tell()
                if content + length > end:
                    raise self.damaged()
                parts.append(self.delimited(tag, field, content, length, depth))
                self.file.seek(content + length)
            else:
                parts.append(self.number(kind, place, end))
        return b"".join(parts)

    def delimited(
        self, tag: int, field: FieldDescriptor | None, content: int, length: int, depth: int
    ) -> bytes:
        """Return a field with a length: a message, a large field, or bytes to keep."""
        if field is None:
            return b""  # Not in the schema, so nothing reads it.
        if field.message_type is not None:
            value = self.message(field.message_type, content, length, depth + 1)
        elif field.full_name in self.large:
            value = PLACE.pack(content, length)
        else:
            self.count(length)
            value = self.file.read(length)
        return encode_varint(tag) + encode_varint(len(value)) + value

    def number(self, kind: int, place: int, end: int) -> bytes:
        """Return a field of a number."""
        if kind == VARINT:
            self.varint()
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            self.file.seek(8 if kind == EIGHT_BYTES else 4, os.SEEK_CUR)
        else:
            raise self.damaged()
        size = self.file.tell() - place
        if place + size > end:
            raise self.damaged()
        self.count(size)
        self.file.seek(place)
        return self.file.read(size)

    def varint(self) -> int:
        """Read an integer of seven bits in each byte."""
        value = 0
        for n in range(MAX_VARINT_BYTES):
            byte = self.file.read(1)
            if not byte:
                break
            value |= (byte[0] & 0x7F) << (7 * n)
            if byte[0] < 0x80:
                return value
        raise self.damaged()

    def count(self, size: int) -> None:
        """Count bytes that are kept."""
        self.bytes += size
        if self.bytes > MAX_MESSAGE_BYTES:
            raise self.absurd(f"at most {MAX_MESSAGE_BYTES:,} bytes beside its numbers")

    def damaged(self) -> DataError:
        """Return the error for bytes that are no message."""
        return DataError(f"{self.origin} is damaged or incomplete")

    def absurd(self, expected: str) -> DataError:
        """Return the error for a message above a limit."""
        return DataError(f"{self.origin} has an absurdly large structure", expected=expected)


def encode_varint(value: int) -> bytes:
    """Return a number as protobuf writes it: seven bits in each byte, the lowest first.

    Example:
        >>> encode_varint(300).hex()
        'ac02'
    """
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)

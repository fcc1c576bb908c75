"""Arrays of structures in MATLAB files of version 5: their texts and single numbers.

SciPy's reader trusts the numbers in a file, and a damaged one can end the process. This one reads
what ImageNet's development kit has, from bytes that are checked.

Source: "MAT-File Format", The MathWorks, version 5.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cnnkit._untrusted.damage import damage_as_error
from cnnkit._untrusted.limits import MAX_MAT_BYTES
from cnnkit._untrusted.regular_files import read_bytes
from cnnkit.errors import DataError

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED, _UTF8 = 14, 15, 16
_STRUCTURES, _TEXT = 2, 4
# Letter of `struct` for each type of numbers.
_LETTERS = {
    1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q",
}  # fmt: skip
# The type of an element, and its content.
Element = tuple[int, bytes]


def read_structures(
    path: str | Path, variable: str, fields: Sequence[str]
) -> list[tuple[str | float, ...]]:
    """Read fields of an array of structures.

    Args:
        path: The file, of `MAX_MAT_BYTES` at most, also when it is unfolded.
        variable: Name of the array.
        fields: Names of fields, which hold a text or one number.

    Returns:
        The values of the fields for each structure.

    Raises:
        DataError: If the file is damaged, has no such array, or a field holds something else.
    """
    data = read_bytes(path, max_bytes=MAX_MAT_BYTES)
    with damage_as_error(path):
        order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER_BYTES])
        if order is None:
            raise DataError(f"{path} is not a MATLAB file of version 5")
        for kind, content in _elements(data[_HEADER_BYTES:], order):
            if kind == _COMPRESSED:
                [(kind, content)] = _elements(_unfold(content, path), order)
            if kind != _MATRIX:
                continue
            flags, sizes, name, *rest = _elements(content, order)
            if name[1] == variable.encode() and _class(flags, order) == _STRUCTURES:
                return _read_table(math.prod(_numbers(sizes, order)), rest, fields, order)
    raise DataError(f"{path} has no array of structures {variable!r}")


def _elements(data: bytes, order: str) -> Iterator[Element]:
    """Yield the elements of a file or of a matrix."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start, end = place + 8, place + 8 + size
        if kind >> 16:
            # A small element: type, size and up to four bytes in eight.
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = place + 4, place + 4 + size
            place += 8
            if size > 4:
                raise ValueError(f"a small element of {size} bytes, not of 4 at most")
        else:
            place = end if kind == _COMPRESSED else end + -end % 8
        if end > len(data):
            raise ValueError(f"an element of {size:,} bytes exceeds the file")
        yield kind, data[start:end]


def _unfold(packed: bytes, path: str | Path) -> bytes:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(packed, MAX_MAT_BYTES)
    if unpacker.unconsumed_tail:
        raise DataError(f"{path} unfolds to more than {MAX_MAT_BYTES:,} bytes")
    return data


def _read_table(
    count: int, elements: Sequence[Element], fields: Sequence[str], order: str
) -> list[tuple[str | float, ...]]:
    """Return the values of the fields of `count` structures from the elements of their array."""
    length, names, *values = elements
    [width] = _numbers(length, order)
    texts = (names[1][place : place + width] for place in range(0, len(names[1]), width))
    columns = [text.partition(b"\0")[0].decode() for text in texts]
    if count * len(columns) != len(values):
        raise ValueError(f"{len(values)} values of {count} structures")
    places = [columns.index(field) for field in fields]
    return [
        tuple(_value(values[row * len(columns) + place], order) for place in places)
        for row in range(count)
    ]


def _value(element: Element, order: str) -> str | float:
    """Return a text or a number, which a matrix holds."""
    flags, _, _, content = itertools.islice(_elements(element[1], order), 4)
    if _class(flags, order) != _TEXT:
        [number] = _numbers(content, order)
        if not math.isfinite(number):
            raise ValueError(f"{number} is not a finite number")
        return float(number)
    kind, data = content
    return data.decode() if kind == _UTF8 else "".join(map(chr, _numbers(content, order)))


def _class(flags: Element, order: str) -> int:
    return int(_numbers(flags, order)[0]) & 0xFF


def _numbers(element: Element, order: str) -> tuple[Any, ...]:
    kind, data = element
    letter = _LETTERS[kind]
    return struct.unpack(f"{order}{len(data) // struct.calcsize(letter)}{letter}", data)

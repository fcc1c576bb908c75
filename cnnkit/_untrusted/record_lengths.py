"""TFRecord files: the lengths that records state are checked before TensorFlow allocates them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from cnnkit._untrusted.images import max_image_bytes, too_large_error
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit.errors import DataError

# A record is its length (8 bytes), the checksum of the length (4), the data, and a checksum (4).
HEAD = struct.Struct("<QI")
TAIL_BYTES = 4
MIN_RECORD_BYTES = HEAD.size + TAIL_BYTES
POLYNOMIAL = 0x82F63B78  # Of CRC-32C, reflected.


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(map(_table_entry, range(256)))


def masked_crc(data: bytes) -> int:
    """Return the checksum that TFRecord files have of a length, the masked CRC-32C.

    Example:
        >>> hex(masked_crc(bytes(8)))
        '0x7980329'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def check_record_lengths(path: str | Path) -> None:
    """Check that the records of a TFRecord file fill it from end to end; their data is not read.

    Args:
        path: The file. Each record holds one image.

    Raises:
        DataError: If it is not a regular file, a length or its checksum is wrong, or a record is
            larger than the file of an image may be.
    """
    max_bytes = max_image_bytes()
    with open_regular_file(path) as file:
        size, place = file.seek(0, os.SEEK_END), 0
        while place < size:
            file.seek(place)
            head = file.read(HEAD.size)
            length, checksum = HEAD.unpack(head.ljust(HEAD.size, b"\0"))
            end = place + MIN_RECORD_BYTES + length
            if end > size or checksum != masked_crc(head[:8]):
                raise DataError(
                    f"{path} is damaged or incomplete",
                    expected="whole records of a TFRecord file",
                    received=f"a record of {length:,} bytes at {place:,} of {size:,}",
                )
            if length > max_bytes:
                raise too_large_error(f"{path} has a record that is too large", f"{length:,} bytes")
            place = end

"""Image files: their size in bytes and pixels is compared with the limits before they are read."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from cnnkit._untrusted.limits import (
    IMAGE_BYTES_PER_PIXEL,
    MAX_IMAGE_PIXELS,
    MAX_JPEG_SEGMENTS,
    MIN_IMAGE_BYTES,
)
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit.errors import DataError, UsageError

ENVIRONMENT_VARIABLE = "CNNKIT_MAX_IMAGE_PIXELS"
# How the files of each image format begin.
IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")
# The longest beginning of a file that has the size of the image, but for JPEG files.
HEAD_BYTES = 30
# Bytes that are read at once: those before the size of most JPEG files.
READ_BYTES = 1024
# Of a segment of a JPEG file: marker, length, and precision, height and width.
SEGMENT_HEAD_BYTES = 9
# Markers of JPEG whose segment has the size: all starts of frames, which three others are between.
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that have no segment, and those after which no size comes.
STANDALONE, END_OF_HEADER = (0x01, *range(0xD0, 0xD9)), (0xD9, 0xDA)


def max_image_pixels() -> int:
    """Return the largest number of pixels, height times width, of an image that is decoded.

    Raises:
        UsageError: If the environment variable CNNKIT_MAX_IMAGE_PIXELS is not a positive integer.
    """
    text = os.environ.get(ENVIRONMENT_VARIABLE)
    if text is None:
        return MAX_IMAGE_PIXELS
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 10 and int(text)):
        raise UsageError(
            f"The environment variable `{ENVIRONMENT_VARIABLE}` must be a number of pixels",
            expected=f"a positive integer, for example {2 * MAX_IMAGE_PIXELS}",
            received=text,
        )
    return int(text)


def max_image_bytes() -> int:
    """Return the largest size of an image file that is read."""
    return max(MIN_IMAGE_BYTES, IMAGE_BYTES_PER_PIXEL * max_image_pixels())


def is_too_large(file: BinaryIO, limits: tuple[int, int] | None = None) -> bool:
    """Return whether an open image file has too many bytes, or says that it has too many pixels.

    Args:
        file: The file; reading begins at its start. A file that is no image is not too large.
        limits: `max_image_pixels()` and `max_image_bytes()`, if they are known already.
    """
    pixels, size = limits or (max_image_pixels(), max_image_bytes())
    if os.fstat(file.fileno()).st_size > size:
        return True
    sides = read_image_sides(file)
    return sides is not None and sides[0] * sides[1] > pixels


def check_image_file(path: str | Path) -> None:
    """Check that an image file is regular and within the limits; its format is not checked.

    Raises:
        DataError: If it is not, or cannot be opened.
    """
    with open_regular_file(path) as file:
        if is_too_large(file):
            size = os.fstat(file.fileno()).st_size
            sides = read_image_sides(file)
            pixels = f" of {sides[0]} x {sides[1]} pixels (height x width)" if sides else ""
            raise too_large_error(f"{path} is too large", f"{size:,} bytes{pixels}")


def too_large_error(problem: str, received: object = None) -> DataError:
    """Return the error for image files above the limits."""
    return DataError(
        problem,
        expected=f"images of at most {max_image_pixels():,} pixels and {max_image_bytes():,} bytes",
        received=received,
        hint=f"The environment variable `{ENVIRONMENT_VARIABLE}` allows more",
    )


def read_image_sides(file: BinaryIO) -> tuple[int, int] | None:
    """Return the height and width that the header of an image file states; None if it has none.

    The first picture of a GIF file can be larger.

    Args:
        file: The file. Of JPEG files the beginnings of the segments are read as well.
    """
    file.seek(0)
    head = file.read(READ_BYTES)
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg_sides(file, head)
    return None if len(head) < HEAD_BYTES else sides_in_head(head)


def sides_in_head(head: bytes) -> tuple[int, int] | None:
    """Return the height and width that the first 30 bytes of a file state; None if they have none.

    Args:
        head: The bytes, or more of them. JPEG files have no size there.
    """
    width = height = None
    try:
        # The rest of this header, up to byte 28, says how the pixels are stored.
        if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) > 28:
            width, height = struct.unpack_from(">II", head, 16)
        elif head.startswith(b"GIF8"):
            width, height = struct.unpack_from("<HH", head, 6)
        elif head.startswith(b"BM"):
            # Files of OS/2 have 16 bits for each side.
            is_core = struct.unpack_from("<I", head, 14) == (12,)
            width, height = struct.unpack_from("<HH" if is_core else "<ii", head, 18)
        elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp_sides(head)
    except struct.error:
        return None
    return None if width is None or height is None else (abs(height), abs(width))


def _jpeg_sides(file: BinaryIO, begin: bytes) -> tuple[int, int] | None:
    place = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        head = begin[place : place + SEGMENT_HEAD_BYTES]
        if len(head) < SEGMENT_HEAD_BYTES:
            file.seek(place)
            head = file.read(SEGMENT_HEAD_BYTES)
        # Bytes of 255 may stand before a marker, and other bytes before those.
        if len(head) < SEGMENT_HEAD_BYTES:
            return None
        marker = head[1]
        if head[0] != 0xFF or marker == 0xFF:
            place += 1
        elif marker in START_OF_FRAME:
            height, width = struct.unpack_from(">HH", head, 5)
            return height, width
        elif marker in END_OF_HEADER:
            return None
        else:
            place += 2 if marker in STANDALONE else 2 + int.from_bytes(head[2:4])
    return None


def _webp_sides(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(head[i : i + 3], "little") for i in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = 1 + bits % 2**14, 1 + bits // 2**14 % 2**14
    elif kind == b"VP8 ":
        width, height = (side % 2**14 for side in struct.unpack_from("<HH", head, 26))
    else:
        return None
    return height, width

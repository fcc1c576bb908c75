"""Inputs that a served graph must refuse: what `cnnkit export verify` tries on a version."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cnnkit.export.image_header import FORMATS

# More axes than any signature of ours takes.
MOST_AXES = 5


def invalid_arrays(shape: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields arrays that do not fit an input, with what is wrong about each.

    Args:
        shape: The input's in the signature; -1 takes any size.
    """
    right = [8 if size == -1 else size for size in shape]
    right[0] = 1
    for axes in range(MOST_AXES + 1):
        if axes != len(shape):
            yield f"{axes} axes", np.zeros((right + [1] * MOST_AXES)[:axes], np.float32)
    for axis, size in enumerate(shape):
        if size != -1:
            other = [*right[:axis], size + 1, *right[axis + 1 :]]
            yield f"the shape {tuple(other)}", np.zeros(other, np.float32)


def invalid_images(pixels: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yields batches of encoded images that cannot be decoded, or should not be.

    Args:
        pixels: The most pixels that an image may have, or None where there is no limit.
    """
    yield "a scalar", _strings(b"x").reshape(())
    yield "2 axes", _strings(b"x").reshape((1, 1))
    yield "no bytes", _strings(b"")
    yield "other bytes", _strings(bytes(range(256)))
    for kind in FORMATS:
        yield f"the first bytes of a {kind} file", _strings(BEGINNINGS[kind])
    if pixels is not None:
        side = math.isqrt(pixels) + 1
        yield f"a PNG file of {side} x {side} pixels", _strings(large_png(side, side))


BEGINNINGS: Mapping[str, bytes] = {
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00",
    "GIF": b"GIF89a\x08\x00\x08\x00\x80",
    "BMP": b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00",
    "WebP": b"RIFF\x40\x00\x00\x00WEBPVP8 \x34",
}


def large_png(height: int, width: int) -> bytes:
    """Returns a black PNG image, one bit a pixel: a thousandth of what it decodes to, and less."""
    row = bytes(1 + -(-width // 8))
    packed = zlib.compressobj(1)
    data = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _strings(*texts: bytes) -> np.ndarray:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array

"""Inputs for `cnnkit export verify`: those to refuse, and files of the same picture."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf

from cnnkit.export.image_header import FORMATS
from cnnkit.wire import cnnkit_serving_pb2 as pb

# More axes than an exported signature has.
MAX_AXES = 5

# Values that no image holds. Networks answer them with plausible numbers: a ReLU turns NaN into 0.
INVALID_PIXELS = (math.nan, math.inf, 3e38)
IMAGE_AXES = 4

# Numbers of TensorFlow's types for handles, which no message can hold.
RESOURCE, VARIANT = 20, 21

# The first bytes of a file of each format.
TRUNCATED_FILES: Mapping[str, bytes] = {
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00",
    "GIF": b"GIF89a\x08\x00\x08\x00\x80",
    "BMP": b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00",
    "WebP": b"RIFF\x40\x00\x00\x00WEBPVP8 \x34",
}


# Transparent on the left and RGB (200, 0, 0) on the right, 8 x 8 pixels.
TRANSPARENT_WEBP = bytes.fromhex(
    "524946461e000000574542505650384c110000002f07c001100f10831cf31f8cc247f43f0000"
)
# EXIF orientation 6: to be turned clockwise.
EXIF_SEGMENT = bytes.fromhex(
    "ffe10022 457869660000 49492a0008000000 0100 1201 0300 01000000 06000000 00000000"
)


def invalid_arrays(shape: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields descriptions and arrays that do not fit the shape of an input, or hold no pixels.

    Args:
        shape: Shape of the input in the signature; -1 for any size.
    """
    valid = [8 if size == -1 else size for size in shape]
    valid[0] = 1
    if len(shape) == IMAGE_AXES:
        for value in INVALID_PIXELS:
            yield f"an image of {value:g}", np.full(valid, value, np.float32)
    for axes in range(MAX_AXES + 1):
        if axes != len(shape):
            yield f"{axes} axes", np.zeros((valid + [1] * MAX_AXES)[:axes], np.float32)
    for axis, size in enumerate(shape):
        if size != -1:
            invalid = [*valid[:axis], size + 1, *valid[axis + 1 :]]
            yield f"the shape {tuple(invalid)}", np.zeros(invalid, np.float32)


def invalid_images(pixels: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yields descriptions and batches of encoded images that must not be decoded.

    Args:
        pixels: Largest number of pixels of an image, or None if there is no limit.
    """
    yield "a scalar", _strings(b"x").reshape(())
    yield "2 axes", _strings(b"x").reshape((1, 1))
    yield "no bytes", _strings(b"")
    yield "other bytes", _strings(bytes(range(256)))
    for name in FORMATS:
        yield f"the first bytes of a {name} file", _strings(TRUNCATED_FILES[name])
    if pixels is not None:
        side = math.isqrt(pixels) + 1
        yield f"a PNG file of {side} x {side} pixels", _strings(large_png(side, side))


def equal_pictures(preprocessing: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields descriptions and batches of two files: a special one, and a PNG file of its pixels.

    Args:
        preprocessing: Content of the `preprocessing.json` of the exported model.
    """
    rng = np.random.default_rng(0)
    palette, indices = rng.integers(0, 256, (256, 4)), rng.integers(0, 256, (16, 16))
    info = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 8, *[0] * 6)
    colors, pixels = (values.astype(np.uint8).tobytes() for values in (palette, indices))
    bmp = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + 40 + 1024) + info + colors + pixels
    # A BMP file has blue first, and the last row first.
    yield "a BMP file with a palette", _strings(bmp, _png(palette[indices[::-1]][..., 2::-1]))

    background = preprocessing.get("background", (255, 255, 255))
    half = np.full((8, 8, 3), (200, 0, 0))
    half[:, :4] = (0, 0, 0) if background is None else background
    yield "a transparent WebP file", _strings(TRANSPARENT_WEBP, _png(half))

    sides = np.zeros((16, 16, 3), np.uint8)
    sides[:, 8:] = 255
    jpeg = tf.io.encode_jpeg(sides, quality=100).numpy()
    turned = tf.io.decode_jpeg(jpeg, channels=3).numpy()
    if preprocessing.get("exif_orientation", True):
        turned = np.rot90(turned, -1)
    yield "a JPEG file on its side", _strings(jpeg[:2] + EXIF_SEGMENT + jpeg[2:], _png(turned))


def _png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(np.ascontiguousarray(image, np.uint8)).numpy()


def hostile_tensors(dtype: int) -> Iterator[tuple[str, pb.TensorProto]]:
    """Yields descriptions and messages of a few bytes that claim far more than they carry.

    TensorFlow Serving decodes them before it looks at the signature: some end it, the others
    allocate gigabytes. serving/README.md says what to do.

    Args:
        dtype: Type of the input.
    """
    for count in (0, 2):
        yield f"{count} resources", _declare(RESOURCE, count)
    yield "a variant", _declare(VARIANT, 1)
    repeated = _declare(dtype, 50_000, 64, 64, 3)
    many = _declare(dtype, 1_000_000)
    endless = _declare(dtype, 2**40)
    for tensor in (repeated, many, endless):
        if dtype == pb.DT_STRING:
            tensor.string_val.append(b"x" * 40_000)
        else:
            tensor.float_val.append(1.0)
    yield "one value repeated for 50000 x 64 x 64 x 3", repeated
    yield "one value repeated a million times", many
    yield "2^40 elements", endless


def _declare(dtype: int, *shape: int) -> pb.TensorProto:
    tensor = pb.TensorProto(dtype=cast("pb.DataType", dtype))
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def large_png(height: int, width: int) -> bytes:
    """Returns a black PNG file of one bit per pixel, less than a thousandth of its decoded size."""
    row = bytes(1 + -(-width // 8))
    compressor = zlib.compressobj(1)
    data = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _strings(*texts: bytes) -> np.ndarray:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array

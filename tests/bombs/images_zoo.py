"""Bombs in the formats of images, alone and in a folder of a dataset."""

from __future__ import annotations

import os
import shutil
import struct
import zlib

from tests.bombs.zoo import SPARSE, ZOO, Bomb, bomb, deflated_zeros, sparse

SIDE = 12_000


def chunk(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    """Return a chunk of a PNG."""
    length = len(data) if size is None else size
    return struct.pack(">I", length) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *more: bytes, depth: int = 8, kind: int = 2) -> bytes:
    """Return a PNG; `data` is the zlib stream of the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zlib_zeros(size: int) -> bytes:
    """Return a zlib stream of zeros, whose checksum is right for zeros."""
    # Adler-32 of zeros: a stays 1, b counts them.
    checksum = struct.pack(">I", (size % 65521) << 16 | 1)
    return b"\x78\xda" + deflated_zeros(size) + checksum


def jpeg(width: int, height: int, *segments: bytes, scan: bytes = b"", frame: int = 0xC0) -> bytes:
    """Return a JPEG of one gray component with tables of Huffman codes of one symbol."""
    quantization = b"\xff\xdb\0\x43\0" + b"\1" * 64
    size = struct.pack(">BBHBHHB", 0xFF, frame, 11, 8, height, width, 1) + b"\1\x11\0"
    tables = b"".join(
        b"\xff\xc4\0\x14" + bytes([kind]) + b"\1" + bytes(15) + b"\0" for kind in (0, 0x10)
    )
    start = b"\xff\xda\0\x08\1\1\0\0\x3f\0"
    return (
        b"\xff\xd8" + b"".join(segments) + quantization + size + tables + start + scan + b"\xff\xd9"
    )


def gif(width: int, height: int, frames: int, side: int = 1) -> bytes:
    """Return a GIF of frames of one color."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\2\2\x44\1\0"
    return head + frame * frames + b"\x3b"


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, palette: int = 0) -> bytes:
    """Return the header of a BMP."""
    info = (40, width, height, 1, bits, compression, 0, 0, 0, palette, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", *info)


def exif(data: bytes) -> bytes:
    """Return an APP1 segment."""
    return b"\xff\xe1" + struct.pack(">H", len(data) + 8) + b"Exif\0\0" + data


def webp(width: int, height: int, lossless: bool = True) -> bytes:
    """Return a WebP of one color whose header names a size."""
    bits = 0x2F | (width - 1) << 8 | (height - 1) << 22
    data = struct.pack("<Q", bits)[:5] + b"\x88\x88\x08" + bytes(8)
    kind = b"VP8L" if lossless else b"VP8 "
    return (
        b"RIFF"
        + struct.pack("<I", len(data) + 12)
        + b"WEBP"
        + kind
        + struct.pack("<I", len(data))
        + data
    )


PIXELS = SIDE * (1 + 3 * SIDE)
IMAGES = {
    "large.png": lambda: png(SIDE, SIDE, zlib_zeros(PIXELS)),
    "deep.png": lambda: png(SIDE, SIDE, zlib_zeros(SIDE * (1 + 8 * SIDE)), depth=16, kind=6),
    "claims.png": lambda: png(0x7FFFFFFF, 0x7FFFFFFF, zlib_zeros(1000)),
    "wide.png": lambda: png(100_000_000, 1, zlib_zeros(300_000_001)),
    "text.png": lambda: png(
        8, 8, zlib_zeros(200), chunk(b"zTXt", b"a\0\0" + zlib_zeros(6 << 30))),
    "profile.png": lambda: png(
        8, 8, zlib_zeros(200), chunk(b"iCCP", b"a\0\0" + zlib_zeros(6 << 30))),
    "chunks.png": lambda: png(8, 8, zlib_zeros(200), chunk(b"tEXt", b"a\0b") * 2_000_000),
    "length.png": lambda: png(8, 8, b"", chunk(b"tEXt", b"a", 0x7FFFFFFF)),
    "large.jpg": lambda: jpeg(65_500, 65_500, scan=bytes(1000)),
    "coded.jpg": lambda: jpeg(20_000, 20_000, scan=bytes(2_000_000)),
    "progressive.jpg": lambda: jpeg(65_500, 65_500, scan=bytes(1000), frame=0xC2),
    "scans.jpg": lambda: jpeg(8000, 8000, frame=0xC2, scan=(
        bytes(100) + b"\xff\xda\0\x08\1\1\0\0\0\0") * 5000),
    "segments.jpg": lambda: jpeg(8, 8, b"\xff\xe5\0\2" * 5_000_000, scan=b"\0"),
    "loop.jpg": lambda: jpeg(8, 8, exif(
        b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)), scan=b"\0"),
    "exif.jpg": lambda: jpeg(8, 8, exif(
        b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 65_535, 0x112, 3, 0xFFFFFFFF, 9)), scan=b"\0"),
    "large.gif": lambda: gif(65_535, 65_535, 1),
    "frames.gif": lambda: gif(1000, 1000, 200_000),
    "filled.gif": lambda: gif(8000, 8000, 100, 8000),
    "large.bmp": lambda: bmp(30_000, 30_000),
    "negative.bmp": lambda: bmp(-(2**31), -(2**31)),
    "rle.bmp": lambda: bmp(30_000, 30_000, 8, 1) + b"\xff\0" * 1000,
    "palette.bmp": lambda: bmp(8, 8, 8, 0, 0xFFFFFFFF) + bytes(100),
    "large.webp": lambda: webp(16_383, 16_383),
    "lossy.webp": lambda: webp(16_383, 16_383, lossless=False),
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"hello\n",
    "zip.png": lambda: b"PK\3\4" + bytes(1000),
}  # fmt: skip
HEADS = {
    "sparse.png": b"\x89PNG\r\n\x1a\n",
    "sparse.jpg": b"",
    "marks.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "sparse.gif": b"GIF89a",
    "sparse.bmp": bmp(50_000, 50_000),
    "sparse.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
}
MEANS = {"fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero")}


def write_image(path) -> None:
    """Write the image bomb that a file's name says."""
    if path.name in HEADS:
        sparse(path, HEADS[path.name], SPARSE)
    elif path.stem in MEANS:
        MEANS[path.stem](path)
    else:
        path.write_bytes(IMAGES[path.name]())


NAMES = [*IMAGES, *HEADS, "fifo.png", "fifo.jpg", "device.jpg"]
# Decoders may answer for these within the limits: the chunk is skipped.
SKIPPED = {
    "text.png", "profile.png", "chunks.png", "segments.jpg", "loop.jpg", "exif.jpg", "coded.jpg",
    "frames.gif", "wide.png", "palette.bmp",
}  # fmt: skip
for _name in NAMES:
    bomb("image", _name, harmless=_name in SKIPPED)(write_image)


def _pictures(path) -> None:
    for label in ("train/a", "train/b", "test/a", "test/b"):
        (path / label).mkdir(parents=True)
        for number in range(6):
            shutil.copy(path.parent / "good" / "digit.png", path / label / f"{number}.png")
    write_image(path / "train" / "a" / path.name.removesuffix(".pictures"))


ZOO.extend(Bomb(f"{name}.pictures", "pictures", _pictures, harmless=True) for name in NAMES)


@bomb("pictures", "all.pictures", harmless=True)
def _all_large(path):
    for label in ("train/a", "train/b", "test/a", "test/b"):
        (path / label).mkdir(parents=True)
    data = IMAGES["large.png"]()
    (path / "train" / "a" / "0.png").write_bytes(data)
    for label in ("train/a", "train/b", "test/a", "test/b"):
        for number in range(1, 9):
            os.link(path / "train" / "a" / "0.png", path / label / f"{number}.png")


@bomb("pictures", "names.pictures", harmless=True)
def _names(path):
    for label in ("a\x1b[2J", "b\u202ex", "c\rnote: all is well"):
        for number in range(6):
            (path / label).mkdir(exist_ok=True)
            shutil.copy(
                path.parent / "good" / "digit.png", path / label / f"{number}\x1b]0;x\7.png"
            )


@bomb("pictures", "links.pictures", harmless=True)
def _links(path):
    for label in "ab":
        (path / label).mkdir()
        for number in range(6):
            shutil.copy(path.parent / "good" / "digit.png", path / label / f"{number}.png")
        (path / label / "loop").symlink_to(path)
        (path / label / "up").symlink_to("/")

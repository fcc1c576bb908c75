"""Bombs in zip archives and in the headers of NumPy files."""

from __future__ import annotations

import struct
import zlib

from tests.bombs.keras_zoo import METADATA, keras_config, weights_h5
from tests.bombs.zoo import (
    GIGABYTE,
    SECRET,
    RawZip,
    bomb,
    inflating_zip,
    npy_header,
    write_zip,
)

SIX = 6 * GIGABYTE


@bomb("weights", "config-6g.keras")
def _config_bomb(path):
    inflating_zip(path, {"config.json": (keras_config(), SIX), "metadata.json": (METADATA, 0)})


@bomb("weights", "config-lie.keras")
def _config_lie(path):
    archive = RawZip()
    archive.add("metadata.json", METADATA)
    archive.add("config.json", keras_config(), size=4_000_000_000)
    path.write_bytes(archive.bytes())


@bomb("weights", "metadata-6g.keras")
def _metadata_bomb(path):
    inflating_zip(path, {"config.json": (keras_config(), 0), "metadata.json": (METADATA, SIX)})


@bomb("weights", "weights-6g.keras")
def _weights_bomb(path):
    config = (keras_config(), 0)
    members = {"metadata.json": (METADATA, 0), "config.json": config}
    inflating_zip(path, {**members, "model.weights.h5": (weights_h5(), SIX)})


CONV1 = {
    "conv1__kernel.npy": (npy_header("(3, 3, 3, 1)") + bytes(108), 0),
    "conv1__bias.npy": (npy_header("(1,)") + bytes(4), 0),
}


@bomb("weights", "inflating.npz")
def _npz_bomb(path):
    inflating_zip(path, {"conv1__kernel.npy": (npy_header("(1000, 1600000)"), SIX)})


@bomb("weights", "mean.npz")
def _npz_mean(path):
    inflating_zip(path, {**CONV1, "mean.npy": (npy_header("(3, 30000, 20000)"), 4_000_000_000)})


@bomb("weights", "members.npz", harmless=True)
def _members(path):
    data = npy_header("(1,)") + b"\0\0\0\0"
    archive = RawZip()
    for number in range(60_000):
        archive.add(f"conv{number}__bias.npy", data)
    path.write_bytes(archive.bytes())


@bomb("weights", "overlap.npz")
def _overlap(path):
    archive, head = RawZip(), npy_header("(64, 65536)")
    data = head + bytes(16 << 20)
    crc = zlib.crc32(data)
    at = archive.add("conv0__kernel.npy", data)
    for _ in range(1000):
        archive.add("conv0__kernel.npy", data, at=at, crc=crc)
    path.write_bytes(archive.bytes())


@bomb("weights", "encrypted.keras", "encrypted.npz")
def _encrypted(path):
    archive = RawZip()
    for name in (
        ("config.json", "metadata.json") if path.suffix == ".keras" else ("conv1__bias.npy",)
    ):
        archive.add(name, keras_config(), flags=1)
    path.write_bytes(archive.bytes())


@bomb("weights", "method.npz")
def _unknown_method(path):
    archive = RawZip()
    archive.add("conv1__bias.npy", npy_header("(1,)") + b"abcd", method=97)
    path.write_bytes(archive.bytes())


@bomb("weights", "lzma.npz")
def _lzma(path):
    # The dictionary size of an LZMA member is allocated before the first byte.
    archive = RawZip()
    archive.add(
        "conv1__bias.npy", struct.pack("<BBHBI", 9, 4, 5, 93, 0xFFFFFFFF) + bytes(64), method=14
    )
    path.write_bytes(archive.bytes())


@bomb("weights", "names.keras", harmless=True)
def _traversal(path):
    write_zip(
        path,
        {"config.json": keras_config(), "metadata.json": METADATA, f"../{SECRET}": b"overwritten",
         "/etc/evil": b"x", "model.weights.h5": weights_h5()},
    )  # fmt: skip


HEADERS = {
    "claims": npy_header("(10000000000,)"),
    "overflow": npy_header("(4611686018427387904, 4611686018427387904)"),
    "negative": npy_header("(-5, 3)"),
    "deep": npy_header("(" * 5000 + ")" * 5000),
    "power": npy_header("(9**9**9,)"),
    "void": npy_header("(1,)", "'|V2000000000'"),
    "fields": npy_header("(1,)", "[('a', '<f4', (100000, 100000))]"),
    "long": b"\x93NUMPY\2\0\xff\xff\xff\xff" + b" " * 100,
}


@bomb("weights", *(f"{name}.header.npy" for name in HEADERS))
@bomb("weights", *(f"{name}.header.npz" for name in HEADERS))
def _headers(path):
    data = HEADERS[path.name.partition(".")[0]] + bytes(64)
    if path.suffix == ".npy":
        path.write_bytes(data)
    else:
        write_zip(path, {"conv1__kernel.npy": data})


@bomb("weights", "zeros.npy", harmless=True)
def _no_elements(path):
    path.write_bytes(npy_header("(0, 4611686018427387904)"))

"""Large weights files, and what is no file; Caffe's and safetensors' formats."""

from __future__ import annotations

import json
import os
import socket
import struct

from tests.bombs.zoo import (
    SPARSE,
    bomb,
    deep_json,
    npy_header,
    sparse,
)

HDF5 = b"\x89HDF\r\n\x1a\n"


@bomb("weights", "sparse.keras", "sparse.h5", "sparse.weights.h5", "sparse.npz", "sparse.npy")
@bomb("weights", "sparse.pth", "sparse.caffemodel", "sparse.safetensors", "sparse.bin", "sparse")
def _sparse(path):
    sparse(path)


@bomb("weights", "signature.h5")
def _sparse_hdf5(path):
    sparse(path, HDF5)


@bomb("weights", "signature.pth")
def _sparse_pickle(path):
    sparse(path, b"\x80\x02\x8a\x0alfc\x9cF\xf9 j\xa8P\x19.")


@bomb("weights", "signature.npz")
def _sparse_zip(path):
    sparse(path, b"PK\3\4")


@bomb("weights", "whole.npy", harmless=True)
def _whole_npy(path):
    head = npy_header("(2500, 1000, 1000)")
    sparse(path, head, len(head) + 10**10)


@bomb("weights", "layer.caffemodel")
def _sparse_caffe(path):
    # A layer whose length is the rest of the file.
    sparse(path, b"\xa2\x06" + varint(SPARSE - 9), SPARSE)


@bomb("weights", "fifo.keras", "fifo.h5", "fifo.pth", "fifo")
def _fifo(path):
    os.mkfifo(path)


@bomb("weights", "device.keras", "device.npz", "device.bin")
def _device(path):
    path.symlink_to("/dev/zero")


@bomb("weights", "socket.h5")
def _socket(path):
    with socket.socket(socket.AF_UNIX) as open_socket:
        open_socket.bind(str(path))


@bomb("weights", "loop.keras")
def _loop(path):
    path.symlink_to(path.name)


@bomb("weights", "empty.keras", "empty.npz", "empty.bin")
def _empty(path):
    path.touch()


def varint(number: int) -> bytes:
    """Encode a number as protocol buffers do."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def field(number: int, data: bytes) -> bytes:
    """Encode a field of bytes as protocol buffers do."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def caffe_layer(blob: bytes) -> bytes:
    """Return a network of one convolution."""
    return field(100, field(1, b"conv1") + field(2, b"Convolution") + field(7, blob))


CAFFE = {
    "layers": field(100, b"") * 8_000_000,
    "layers-v1": field(2, b"") * 8_000_000,
    "named": field(100, field(1, b"conv1") + field(2, b"Convolution") + field(7, b"")) * 300_000,
    "blobs": field(100, field(1, b"c") + field(2, b"Convolution") + field(7, b"") * 3_000_000),
    "inputs": field(3, b"") * 8_000_000,
    "unknown": field(9000, b"") * 8_000_000,
    "groups": b"\x0b" * 1_000_000,
    "dimensions": caffe_layer(field(7, field(1, varint(1 << 40) * 2)) + field(5, bytes(16))),
    "negative": caffe_layer(field(7, field(1, b"\xff" * 9 + b"\1"))),
    "legacy": caffe_layer(b"\x08\xff\xff\xff\xff\x07\x10\xff\xff\xff\xff\x07" + field(5, bytes(4))),
    "many-dims": caffe_layer(field(7, field(1, b"\1" * 1_000_000)) + field(5, bytes(4))),
    "no-dims": caffe_layer(field(7, field(1, b"\0" + varint(1 << 62)))),
}


@bomb("weights", *(f"{name}.caffemodel" for name in CAFFE))
def _caffe(path):
    path.write_bytes(CAFFE[path.stem])


def one_tensor(shape, begin, end, kind="F32") -> bytes:
    """Return a header of one tensor."""
    offsets = [begin, end]
    return json.dumps({"w": {"dtype": kind, "shape": shape, "data_offsets": offsets}}).encode()


MANY = ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(500_000))
SAFETENSORS = {
    "length": (b"{}", 1 << 60),
    "long": (b"{" + b" " * (99 << 20) + b"}", None),
    "deep": (deep_json(), None),
    "many": (b"{" + MANY.encode() + b"}", None),
    "claims": (one_tensor([10**10], 0, 4 * 10**10), None),
    "overflow": (one_tensor([2**62, 4], 0, 0), None),
    "outside": (one_tensor([1], 10**15, 10**15 + 4), None),
    "negative": (one_tensor([1], -4, 0), None),
    "types": (b'{"w": [1, 2, {"a": null}]}', None),
    "nan": (b'{"w": NaN}', None),
    "utf8": (b'{"\xff\xfe": 1}', None),
    "twice": (b"{" + one_tensor([1], 0, 4)[1:-1] + b"," + one_tensor([1], 0, 4)[1:], None),
}


@bomb("weights", *(f"{name}.safetensors" for name in SAFETENSORS))
def _safetensors(path):
    header, length = SAFETENSORS[path.stem]
    path.write_bytes(
        struct.pack("<Q", len(header) if length is None else length) + header + bytes(4)
    )

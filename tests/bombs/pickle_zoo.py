"""Bombs in pickles: files of PyTorch, and NumPy's arrays of objects."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile

import numpy as np

from tests.bombs.zoo import (
    SECRET,
    bomb,
    npy_header,
    write_zip,
)


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


MEMO = b"\x80\x02}r\xff\xff\xff\x7fq\x00."
MEMO_2G = b"\x80\x02}r\0\0\0\x08q\x00."
LAUGHS = b"\x80\x02]q\0" + b"(" + b"h\0" * 10 + b"e" + b"".join(
    b"]q%c(" % number + b"h%c" % (number - 1) * 10 + b"e" for number in range(1, 60)
) + b"."  # fmt: skip
PICKLES = {
    "memo": MEMO,
    "memo-2g": MEMO_2G,
    "laughs": LAUGHS,
    "deep": b"\x80\x02" + b"(" * 3_000_000 + b"K\1" + b"t" * 3_000_000 + b".",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"a.",
    "bytes": b"\x80\x05\x96" + struct.pack("<Q", 9 << 30) + b"a.",
    "number": b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"\1.",
    "many": b"\x80\x02" + b"]" * 20_000_000 + b".",
    "system": pickle.dumps(Call(os.system, "touch hacked")),
    "numpy": pickle.dumps(Call(np.ndarray, (10**10,), np.dtype("f4"))),
    "load": pickle.dumps(Call(np.load, SECRET)),
}


@bomb("weights", *(f"{name}.pth" for name in PICKLES))
@bomb("weights", *(f"{name}.npy" for name in PICKLES))
@bomb("weights", *(f"{name}.old.pth" for name in ("memo", "memo-2g", "laughs", "system", "many")))
def _pickles(path):
    data = PICKLES[path.name.partition(".")[0]]
    if path.suffix == ".npy":
        path.write_bytes(npy_header("()", "'|O'") + data)
    elif ".old" in path.name:
        magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
        path.write_bytes(magic + pickle.dumps({"little_endian": True}, 2) + data)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", data)
            archive.writestr("a/version", "3")


def torch_tensor(shape, stride, offset=0, numel=1, kind="FloatStorage") -> bytes:
    """Return the `data.pkl` of one tensor."""
    storage = b"(X\7\0\0\0storagectorch\n%s\nX\1\0\0\0aX\3\0\0\0cpu" % kind.encode()

    def integer(number):
        return b"\x8a\x08" + struct.pack("<q", number)

    def numbers(values):
        return b"(" + b"".join(map(integer, values)) + b"t"

    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(numel)
        + b"tQ" + integer(offset) + numbers(shape) + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip
    return b"\x80\x02}X\x0c\0\0\0conv1.weight" + tensor + b"s."


TENSORS = {
    "expanded": ((10**6, 10**6), (0, 0)),
    "overlapping": ((40_000, 40_000), (1, 1), 0, 80_000),
    "outside": ((4,), (1,), 10**12, 1),
    "negative": ((4,), (-1,), -5, 1),
    "overflow": ((2**62, 2**62), (1, 1)),
    "claims": ((10**10,), (1,), 0, 10**10),
}


@bomb("weights", *(f"{name}.tensor.pth" for name in TENSORS))
def _tensors(path):
    arguments = TENSORS[path.name.partition(".")[0]]
    write_zip(
        path, {"a/data.pkl": torch_tensor(*arguments), "a/version": b"3", "a/data/a": bytes(4)}
    )

"""Bombs in datasets and in the configuration of a server."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np

from tests.bombs.pickle_zoo import PICKLES
from tests.bombs.stores_zoo import ESCAPES, add_folder_bombs
from tests.bombs.zoo import (
    SECRET,
    SPARSE,
    bomb,
    deflated_zeros,
    inflating_zip,
    npy_header,
    replace_by_device,
    replace_by_fifo,
    replace_by_sparse,
    sparse,
    write_zip,
)

add_folder_bombs("shards", ["index.npz", "train-00000.tfrecord"])


def shard_index(path: Path, **changes) -> None:
    """Change arrays of the index of a sharded dataset, or fields of its `about`."""
    with np.load(path / "index.npz") as archive:
        arrays = dict(archive)
    about = json.loads(arrays["about"].tobytes())
    for name, value in changes.items():
        if name in about:
            about[name] = value
        else:
            arrays[name] = value(arrays[name])
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(path / "index.npz", **arrays)


def with_number(column: int, number: int):
    """Return a function that puts a number into a column of locations."""

    def change(places):
        changed = places.copy()
        changed[:, column] = number
        return changed

    return change


SHARDS = {
    "file": {"train/places": with_number(0, 10**6)},
    "offset": {"train/places": with_number(1, 10**15)},
    "negative": {"train/places": with_number(1, -100)},
    "length": {"train/places": with_number(2, 10**15)},
    "traversal": {"shards": [[f"../{SECRET}", 12]]},
    "absolute": {"shards": [["/etc/hostname", 12]]},
    "labels": {"train/labels": lambda labels: labels + 10**6},
    "names": {"train/names": lambda names: names[:5]},
    "shards": {"shards": 5}, "parts": {"parts": ["nothing"]}, "format": {"format": {}},
    "classes": {"labels": 10**18}, "rows": {"train/places": lambda places: places.ravel()},
    "floats": {"train/places": lambda places: places * np.nan},
    "escapes": {"labels": [ESCAPES] * 3},
}  # fmt: skip


@bomb("shards", *(f"{name}.shards" for name in SHARDS), harmless=True)
def _shards(path):
    shard_index(path, **SHARDS[path.name.partition(".")[0]])


@bomb("shards", "6g.index", "pickle.index")
def _shard_index(path):
    if path.name == "6g.index":
        inflating_zip(
            path / "index.npz", {"about.npy": (npy_header("(6000000000,)", "'|u1'"), SPARSE)}
        )
    else:
        write_zip(path / "index.npz", {"about.npy": npy_header("()", "'|O'") + PICKLES["system"]})


@bomb("shards", "record.shards", harmless=True)
def _record(path):
    file = path / "train-00000.tfrecord"
    data = bytearray(file.read_bytes())
    data[:8] = struct.pack("<Q", 1 << 62)
    file.write_bytes(data)


def voc(path: Path) -> Path:
    """Write a folder of PASCAL VOC, and return that of its lists."""
    lists = path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (path / "JPEGImages").mkdir()
    for name in "abcdef":
        shutil.copy(path.parent / "good" / "digit.png", path / "JPEGImages" / f"{name}.jpg")
    for label in ("cat", "dog"):
        for split in ("trainval", "test"):
            (lists / f"{label}_{split}.txt").write_text("a 1\nb -1\nc 1\nd -1\n")
    return lists


VOC = {
    "sparse": sparse, "fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"),
    "lines": lambda path: path.write_bytes(b"".join(b"%d 1\n" % n for n in range(3_000_000))),
    "traversal": lambda path: path.write_text(f"../../{SECRET} 1\n/etc/passwd -1\n"),
    "utf8": lambda path: path.write_bytes(b"\xff\xfe 1\n"),
    "nul": lambda path: path.write_bytes(b"a\0b 1\n"),
    "line": lambda path: path.write_bytes(b"a" * (300 << 20)),
}  # fmt: skip


@bomb("voc", *(f"{name}.voc" for name in VOC))
def _voc(path):
    lists = voc(path)
    for file in lists.glob("cat_*.txt"):
        file.unlink()
        VOC[path.stem](file)


@bomb("voc", "image-sparse.voc", "image-fifo.voc", "image-device.voc")
def _voc_image(path):
    voc(path)
    file = path / "JPEGImages" / "a.jpg"
    {"sparse": replace_by_sparse, "fifo": replace_by_fifo, "device": replace_by_device}[
        path.stem.partition("-")[2]
    ](file)


IMAGENET = {
    "sparse": sparse, "fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"),
    "lines": lambda path: path.write_bytes(b"n01440764\n" * 5_000_000),
    "utf8": lambda path: path.write_bytes(b"\xff\xfe\n" * 2),
    "number": lambda path: path.write_text("9" * 10_000 + "\n1\n"),
    "line": lambda path: path.write_bytes(b"a" * (300 << 20)),
}  # fmt: skip


@bomb("imagenet", *(f"{name}.imagenet" for name in IMAGENET))
@bomb("imagenet", "sparse-wnids.imagenet", "fifo-wnids.imagenet", "lines-wnids.imagenet")
@bomb("imagenet", "sparse-meta.imagenet", "fifo-meta.imagenet", "claims-meta.imagenet")
def _imagenet(path):
    way, _, which = path.stem.partition("-")
    for name in ("n01440764", "n01443537"):
        (path / "train" / name).mkdir(parents=True)
        shutil.copy(path.parent / "good" / "digit.png", path / "train" / name / "a.JPEG")
    (path / "val").mkdir()
    for name in "ab":
        shutil.copy(path.parent / "good" / "digit.png", path / "val" / f"{name}.JPEG")
    names = {"": "val_labels.txt", "wnids": "wnids.txt", "meta": "meta.mat"}
    if which:
        (path / "val_labels.txt").write_text("1\n2\n")
    if way == "claims":
        _mat_bomb(path / "meta.mat")
    else:
        IMAGENET[way](path / names[which])


def _mat_bomb(path: Path) -> None:
    """Write a MATLAB file whose compressed element unfolds to 6 GB."""
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    data = b"\x78\xda" + deflated_zeros(6 << 30)
    path.write_bytes(head + struct.pack("<II", 15, len(data)) + data)


CONFIGS = {
    "sparse": sparse, "fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"),
    "many": lambda path: path.write_text(
        "model_config_list {" + 'config {name: "a" base_path: "/b"}' * 300_000 + "}"),
    "deep": lambda path: path.write_text("a {" * 200_000),
    "utf8": lambda path: path.write_bytes(b"\xff\xfe model"),
    "number": lambda path: path.write_text(
        'model_config_list {config {name:"a" base_path:"/b" model_version_policy '
        "{specific {versions: " + "9" * 5000 + "}}}}"),
}  # fmt: skip


@bomb("models.config", *(f"{name}.config" for name in CONFIGS))
def _models_config(path):
    CONFIGS[path.stem](path)

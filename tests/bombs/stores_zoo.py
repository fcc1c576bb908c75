"""Bombs in folders that cnnkit writes, in datasets, label files and results."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.bombs.pickle_zoo import PICKLES
from tests.bombs.zoo import (
    SECRET,
    bomb,
    deep_json,
    inflating_zip,
    npy_header,
    replace_by_device,
    replace_by_fifo,
    replace_by_sparse,
    sparse,
    write_zip,
)

ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\u202eevil"


def change_json(file: Path, **changes) -> None:
    """Change fields of a JSON file; those of None are removed."""
    document = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: one for key, one in document.items() if one is not None}))


def add_folder_bombs(kind: str, files: list[str], *, deep: bool = True) -> None:
    """Add the usual bombs for each file of a folder."""
    ways = {
        "sparse": replace_by_sparse,
        "fifo": replace_by_fifo,
        "device": replace_by_device,
        "empty": lambda path: path.write_bytes(b""),
        "utf8": lambda path: path.write_bytes(b"\xff\xfe\xfd" * 10),
    }
    texts = {
        "deep": deep_json(), "list": b"[]", "nan": b"NaN", "digits": b"1" * 100_000,
        "null": b"null", "nul": b'{"a\\u0000": "\\u0000"}', "object": b"{}",
        "line": b"a" * (200 << 20),
    }  # fmt: skip
    for file in files:
        text_file = Path(file).suffix in (".json", ".jsonl", ".txt")
        for way, write in ways.items():
            name = f"{way}.{file.replace('/', '.')}"
            bomb(kind, name, harmless=True)(lambda path, file=file, write=write: write(path / file))
        for way, text in texts.items() if text_file and deep else ():
            bomb(kind, f"{way}.{file.replace('/', '.')}", harmless=True)(
                lambda path, file=file, text=text: (path / file).write_bytes(text)
            )


RUN_FILES = ["config.json", "labels.txt", "metrics.jsonl", "statistics.npz", "model.keras"]
EVALUATION = "evaluations/center-9-06e29163.json"
add_folder_bombs("run", [*RUN_FILES, "environment.json", EVALUATION])


@bomb("run", "epochs.run", "classes.run", "size.run", "dataset.run", harmless=True)
def _run_config(path):
    changes = {
        "epochs": {"epochs": 10**30}, "classes": {"batch_size": 10**18, "scale": [10**9, 10**9]},
        "size": {"image_size": 10**9}, "dataset": {"dataset": f"folder:../{SECRET}"},
    }  # fmt: skip
    change_json(path / "config.json", **changes[path.name.partition(".")[0]])


@bomb("run", "members.statistics", harmless=True)
def _statistics(path):
    inflating_zip(path / "statistics.npz", {"mean.npy": (npy_header("(1000, 1600000)"), 6 << 30)})


@bomb("run", "pickle.statistics", harmless=True)
def _statistics_pickle(path):
    data = npy_header("()", "'|O'") + PICKLES["system"]
    write_zip(path / "statistics.npz", {"mean.npy": data})


@bomb("run", "checkpoint", harmless=True)
def _checkpoint(path):
    file = next((path / "checkpoints").iterdir())
    inflating_zip(file, {"0.npy": (npy_header("(1000, 1600000)"), 6 << 30)})
    (path / "model.keras").unlink()


@bomb("run", "escapes.run", harmless=True)
def _escapes(path):
    names = [ESCAPES.replace("\r", "") + str(number) for number in range(10)]
    (path / "labels.txt").write_text("\n".join(names) + "\n")
    change_json(path / "config.json", dataset=f"folder:{ESCAPES}")


@bomb("run", "million.metrics", harmless=True)
def _many_epochs(path):
    line = (path / "metrics.jsonl").read_text().splitlines()[0]
    (path / "metrics.jsonl").write_text((line + "\n") * 300_000)


@bomb("run", "million.labels", harmless=True)
def _many_labels(path):
    (path / "labels.txt").write_text("\n".join(map(str, range(3_000_000))))


# -- Feature stores --------------------------------------------------------------------------------

add_folder_bombs("store", ["index.json", "features-00000.json", "features-00000.npy"])
INDEX = {
    "images": {"images": 10**18}, "rows": {"rows": 10**18}, "row": {"rows": 1, "images": 10**12},
    "zero": {"rows": 0}, "negative": {"images": -5}, "dimension": {"dimension": 10**18},
    "float": {"images": 1e308}, "text": {"images": "30"}, "classes": {"classes": 5},
    "spec": {"protocol": {"layer": "fc7", "scales": [10**12]}}, "protocol": {"protocol": []},
    "missing": {"rows": None}, "format": {"format": {"a": 1}}, "network": {"network": [1]},
    "huge": {"images": 10**400}, "escapes": {"network": ESCAPES, "dataset": ESCAPES},
}  # fmt: skip


@bomb("store", *(f"{name}.index" for name in INDEX), harmless=True)
def _index(path):
    change_json(path / "index.json", **INDEX[path.name.partition(".")[0]])


@bomb("store", "claims.part", "pickle.part", "fields.part", harmless=True)
def _part(path):
    data = {
        "claims": npy_header("(16, 10000000000)"),
        "pickle": npy_header("()", "'|O'") + PICKLES["system"],
        "fields": npy_header("(16,)", "[('a', '|O')]") + PICKLES["system"],
    }[path.name.partition(".")[0]]  # fmt: skip
    (path / "features-00000.npy").write_bytes(data)


@bomb("store", "names.part", harmless=True)
def _names(path):
    change_json(path / "features-00000.json", names=["/etc/passwd", ESCAPES] * 8)


# -- Saved classifiers -----------------------------------------------------------------------------

add_folder_bombs("classifier", ["transfer.json", "pipeline.skops"])
OPENED = {"models": ["good/run"], "model": None, "model_option": [], "model_seed": 0}
REFERENCES = {
    "secret": {"opened": {**OPENED, "models": [SECRET]}},
    "bucket": {"opened": {**OPENED, "models": ["gs://bucket/model.keras"]}},
    "url": {"opened": {**OPENED, "models": ["http://127.0.0.1:9/model.keras"]}},
    "mean": {"opened": {**OPENED, "mean": SECRET}},
    "imagenet": {"opened": {**OPENED, "models": ["imagenet"], "model": "vgg16"}},
    "random": {"opened": {**OPENED, "models": ["random"], "model": "vgg19"}},
    "type": {"opened": 5}, "list": {"opened": [1]}, "classes": {"classes": 10**18},
    "dimension": {"dimension": 10**18}, "spec": {"protocol": {"layer": "x", "scales": [10**12]}},
    "several": {"several": "x"}, "format": {"format": [1]}, "escapes": {"classes": [ESCAPES] * 3},
}  # fmt: skip


@bomb("classifier", *(f"{name}.reference" for name in REFERENCES), harmless=True)
def _reference(path):
    change_json(path / "transfer.json", **REFERENCES[path.name.partition(".")[0]])


def skops_node(**fields) -> dict:
    """Return a node of a skops schema."""
    whole = {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode"}
    return {**whole, "__id__": 1, "protocol": 2, "_skops_version": "0.16.0", **fields}


def nested_skops(depth: int) -> dict:
    """Return a schema of lists in lists."""
    node = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "__id__": 0}
    found = {**node, "content": []}
    for number in range(1, depth):
        found = {**node, "__id__": number, "content": [found]}
    return {**found, "protocol": 2, "_skops_version": "0.16.0"}


SKOPS = {
    "6g": None,
    "deep": lambda: {"schema.json": deep_json()},
    "nested": lambda: {"schema.json": json.dumps(nested_skops(300)).encode()},
    "system": lambda: {"schema.json": json.dumps(skops_node(
        __class__="system", __module__="os", __loader__="FunctionNode",
        content="system")).encode()},
    "array": lambda: {"a.npy": npy_header("(10000000000,)"), "schema.json": json.dumps(skops_node(
        __class__="ndarray", __module__="numpy", __loader__="NdArrayNode", type="numpy",
        file="a.npy")).encode()},
    "pickle": lambda: {"a.npy": npy_header("()", "'|O'") + PICKLES["system"],
        "schema.json": json.dumps(skops_node(__class__="ndarray", __module__="numpy",
        __loader__="NdArrayNode", type="numpy", file="a.npy")).encode()},
    "type": lambda: {"schema.json": b"[1, 2, 3]"},
    "missing": lambda: {"a": b""},
}  # fmt: skip


@bomb("classifier", *(f"{name}.skops" for name in SKOPS))
def _skops(path):
    make = SKOPS[path.name.partition(".")[0]]
    if make is None:
        inflating_zip(path / "pipeline.skops", {"schema.json": (b"{", 6 << 30)})
    else:
        write_zip(path / "pipeline.skops", make())


# -- Label files and results -----------------------------------------------------------------------


@bomb("labels", "sparse.txt")
def _sparse_labels(path):
    sparse(path)


@bomb("labels", "fifo.txt")
def _fifo_labels(path):
    os.mkfifo(path)


@bomb("labels", "device.txt")
def _device_labels(path):
    path.symlink_to("/dev/zero")


LABELS = {
    "lines": lambda: b"a\n" * (100 << 20),
    "line": lambda: b"a" * (300 << 20),
    "blank": lambda: b"\n" * (100 << 20),
    "utf8": lambda: b"\xff\xfe\xfd\n" * 10,
    "nul": lambda: b"a\0b\n" * 10,
    "utf32": lambda: "a\nb\n".encode("utf-32"),
    "escapes": lambda: (ESCAPES + "\n").encode() * 10,
    "binary": lambda: bytes(range(256)) * 100,
}


@bomb("labels", *(f"{name}.txt" for name in LABELS), harmless=True)
def _labels(path):
    path.write_bytes(LABELS[path.stem]())


@bomb("results", "sparse.json", "fifo.json", "device.json")
def _no_results(path):
    {"sparse": sparse, "fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero")}[
        path.stem
    ](path)


RESULTS = {
    "deep": deep_json, "list": lambda: b"[]", "nan": lambda: b"NaN", "empty": lambda: b"{}",
    "digits": lambda: b"1" * 100_000, "utf8": lambda: b'{"\xff": 1}',
}  # fmt: skip
CHANGED_RESULTS = {
    "classes": {"classes": [{"label": "a"}] * 30_000}, "type": {"classes": 5, "confusion": "x"},
    "confusion": {"confusion": [[10**18, -1, 1e300]]}, "images": {"images": "x"},
    "dataset": {"dataset": f"folder:../{SECRET}"}, "examples": {"examples": [7], "mistakes": {}},
    "escapes": {"dataset": ESCAPES},
}  # fmt: skip


@bomb("results", *(f"{name}.json" for name in RESULTS))
@bomb("results", *(f"{name}.changed.json" for name in CHANGED_RESULTS), harmless=True)
def _results(path):
    name = path.name.partition(".")[0]
    if name in RESULTS:
        path.write_bytes(RESULTS[name]())
    else:
        shutil.copy(path.parent / "good" / "run" / EVALUATION, path)
        change_json(path, **CHANGED_RESULTS[name])


@bomb("mean", "sparse.binaryproto", "fifo.binaryproto", "claims.binaryproto", "many.binaryproto")
def _mean(path):
    big = b"\x08\x01\x10\x03\x18\x80\x80\x80\x80\x07\x20\x80\x80\x80\x80\x07\x2a\x04abcd"
    writes = {
        "sparse": sparse, "fifo": os.mkfifo, "claims": lambda path: path.write_bytes(big),
        "many": lambda path: path.write_bytes(b"\x2a\0" * 8_000_000),
    }  # fmt: skip
    writes[path.stem](path)

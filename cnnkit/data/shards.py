"""Datasets in a few large files: TFRecords, with an index that finds every image in them.

    DIR/train-00000.tfrecord ...    records of tf.train.Example: `image/encoded`, the bytes of the
                                    file as they were; `image/filename`; `image/class/label`;
                                    `image/class/text`
    DIR/index.npz                   written last: the classes, the fingerprint, the shards and
                                    their sizes, and for each image its name, label, place and
                                    checksum

The index alone makes a folder of shards a dataset.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.data.records import Places, reader
from cnnkit.data.split import Source, Split
from cnnkit.errors import DataError, UsageError

INDEX = "index.npz"
FORMAT = 1


def load_shards(root: str) -> Source:
    """Opens a folder that `write_shards` wrote.

    Raises:
        UsageError: If there is none.
        DataError: If its index or a shard is torn or missing.
    """
    folder = Path(root)
    if not (folder / INDEX).is_file():
        raise UsageError(
            f"No index of shards in {root}",
            expected=f"a folder with {INDEX}, from `cnnkit data shard`",
            hint="Without it, writing was not finished: write the shards again",
        )
    about, arrays = _read_index(folder / INDEX)
    for name, size in about["shards"]:
        if not (folder / name).is_file():
            raise DataError(f"The shard {folder / name} is missing", hint="Write the shards again")
        if (found := (folder / name).stat().st_size) != size:
            raise DataError(
                f"The shard {folder / name} is torn",
                expected=f"{size} bytes",
                received=found,
                hint="Copy it or write the shards again",
            )
    files = [str(folder / name) for name, _ in about["shards"]]
    splits = {}
    for part in about["parts"]:
        number, offset, length, _ = arrays[f"{part}/places"].T
        names = arrays[f"{part}/names"].tobytes().decode().split("\n")
        places = Places(files, number.astype(np.int32), offset, length)
        splits[part] = Split.of_files(arrays[f"{part}/labels"], names, reader(places))
    return Source(
        f"shards:{root}",
        tuple(about["labels"]),
        splits,
        about["fingerprint"],
        tuple(about["unreadable"]),
    )


def _read_index(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with file.open("rb") as data, np.load(data) as stored:
            arrays = {name: stored[name] for name in stored.files}
        about = json.loads(arrays.pop("about").tobytes())
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
        raise DataError(f"{file} is torn", hint="Copy it or write the shards again") from error
    if about["format"] != FORMAT:
        raise DataError(
            f"{file} is of another cnnkit", expected=f"format {FORMAT}", received=about["format"]
        )
    return about, arrays

"""Writing a dataset as shards: see `cnnkit.data.shards` for what they are."""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit.data.records import AROUND_DATA, BEFORE_DATA
from cnnkit.data.shards import FORMAT, INDEX
from cnnkit.data.split import Source, Split
from cnnkit.data.workers import BATCHES_AHEAD, parallel_map
from cnnkit.errors import UsageError
from cnnkit.writing import ASIDE, written_aside

SHARD_BYTES = 512 << 20


def write_shards(
    source: Source,
    output: str | Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[], object] = lambda: None,
) -> Path:
    """Writes a dataset as shards; encoded images stay as they are, others become PNG files.

    A folder without an index is no dataset, so that work that was interrupted is begun again.

    Args:
        source: The dataset.
        output: Folder for the shards, new or empty.
        shard_bytes: Bytes after which another shard is begun.
        progress: Called after every image.

    Returns:
        The index file.

    Raises:
        UsageError: If `output` holds anything but the beginnings of such work.

    Example:
        >>> import tempfile
        >>> from cnnkit.data import load_source, write_shards
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_shards(load_source("digits"), folder)
        ...     len(load_source(f"shards:{folder}").splits["train"])
        1438
    """
    folder = Path(output)
    _clear(folder)
    shards: list[tuple[str, int]] = []
    arrays: dict[str, np.ndarray] = {}
    digest = hashlib.sha256(json.dumps(source.labels).encode())
    for part, split in sorted(source.splits.items()):
        images = enumerate(_encoded(split))
        rows: list[tuple[int, int, int, int]] = []
        for number in itertools.count():
            name = f"{part}-{number:05d}.tfrecord"
            with written_aside(folder / name) as aside:
                size = 0
                with tf.io.TFRecordWriter(str(aside)) as writer:
                    for i, data in images:
                        record = _example(source, split, i, data)
                        writer.write(record)
                        place = size + BEFORE_DATA + record.index(data)
                        rows.append((len(shards), place, len(data), zlib.crc32(data)))
                        size += len(record) + AROUND_DATA
                        progress()
                        if size >= shard_bytes:
                            break
            shards.append((name, size))
            if len(rows) == len(split):
                break
        names = "\n".join(" ".join(name.splitlines()) for name in split.names).encode()
        arrays[f"{part}/labels"] = split.labels
        arrays[f"{part}/names"] = np.frombuffer(names, np.uint8)
        arrays[f"{part}/places"] = np.array(rows, np.int64)
        # Not of the places, so that the size of the shards does not matter.
        for values in (split.labels, arrays[f"{part}/names"], arrays[f"{part}/places"][:, 2:]):
            digest.update(np.ascontiguousarray(values).tobytes())
    about = {
        "format": FORMAT,
        "source": source.spec,
        "labels": source.labels,
        "parts": sorted(source.splits),
        "shards": shards,
        "fingerprint": digest.hexdigest(),
        "unreadable": source.unreadable,
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with written_aside(folder / INDEX) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return folder / INDEX


def _clear(folder: Path) -> None:
    """Makes the folder, and removes what interrupted work left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = list(folder.iterdir())
    left = [e for e in entries if e.suffix == ".tfrecord" or e.name.startswith(ASIDE)]
    if len(left) != len(entries):
        raise UsageError(
            f"{folder} is not empty", expected="a new folder for the shards", hint="Use another one"
        )
    for entry in left:
        entry.unlink()


def _encoded(split: Split) -> Iterator[bytes]:
    encoded = split.encoded or (lambda index: tf.io.encode_png(split.read(index)))
    dataset = parallel_map(tf.data.Dataset.range(len(split)), encoded)
    return iter(dataset.prefetch(BATCHES_AHEAD).as_numpy_iterator())


def _example(source: Source, split: Split, index: int, data: bytes) -> bytes:
    label = int(split.labels[index])

    def text(value: str | bytes) -> tf.train.Feature:
        value = value if isinstance(value, bytes) else value.encode()
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "image/encoded": text(data),
        "image/filename": text(split.names[index]),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "image/class/text": text(source.labels[label]),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)

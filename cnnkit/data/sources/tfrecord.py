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

import functools
import hashlib
import itertools
import json
import os
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from cnnkit._files import STAGING_PREFIX, staged_file
from cnnkit.data.dataset import Dataset, Split
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.errors import DataError, UsageError

# A TFRecord is its length (8 bytes), a checksum (4), the data, and a checksum (4).
BEFORE_DATA, AROUND_DATA = 12, 16
# Bytes of encoded images that are kept in memory rather than on disk.
IN_MEMORY = 1 << 30


@dataclass(frozen=True)
class RecordOffsets:
    """Where each of n images lies.

    Attributes:
        files: Paths.
        file: (n,) int32, the place of the image's file in `files`.
        offset: (n,) int64, of the image's first byte.
        length: (n,) int64, in bytes.
    """

    files: Sequence[str]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray

    def take(self, index: np.ndarray) -> RecordOffsets:
        """Returns the places of some of the images."""
        return RecordOffsets(self.files, self.file[index], self.offset[index], self.length[index])


def record_reader(places: RecordOffsets) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the graph function from an index, () int64, to the bytes of the image, () string.

    A small set is read into memory. From a large one each image is read when it is asked for, by
    Python, which costs about as much as decoding a tiny image, and nothing beside decoding a
    photograph.

    Raises:
        DataError: If a file has become shorter; of a large set the function raises
            tf.errors.InvalidArgumentError then.
    """
    if places.length.sum() > IN_MEMORY:
        read = functools.partial(_read, places, functools.cache(_Descriptor))

        def encoded(index: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(read, [index], tf.string, stateful=False), ())

        return encoded
    descriptors = functools.cache(_Descriptor)
    with tf.device("CPU:0"):
        table = tf.constant([_read(places, descriptors, i) for i in range(len(places.length))])
    return lambda index: tf.gather(table, index)


def _read(places: RecordOffsets, descriptor: Callable[[str], _Descriptor], index: int) -> bytes:
    path, length = places.files[places.file[index]], int(places.length[index])
    data = os.pread(descriptor(path).number, length, int(places.offset[index]))
    if len(data) != length:
        raise DataError(f"{path} has become shorter", hint="Restore it")
    return data


def read_records(file: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yields the records of a TFRecord file, each after the offset of its data.

    Raises:
        tf.errors.DataLossError: If the file is torn.
    """
    offset = BEFORE_DATA
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        yield offset, record
        offset += len(record) + AROUND_DATA


class _Descriptor:
    """An open file, closed when nobody needs it any more."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)


INDEX = "index.npz"
FORMAT = 1


def load_shards(root: str) -> Dataset:
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
        places = RecordOffsets(files, number.astype(np.int32), offset, length)
        splits[part] = Split.of_files(arrays[f"{part}/labels"], names, record_reader(places))
    return Dataset(
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


SHARD_BYTES = 512 << 20


def write_shards(
    source: Dataset,
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
        >>> from cnnkit.data import load_dataset, write_shards
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_shards(load_dataset("digits"), folder)
        ...     len(load_dataset(f"shards:{folder}").splits["train"])
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
            with staged_file(folder / name) as aside:
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
    with staged_file(folder / INDEX) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return folder / INDEX


def _clear(folder: Path) -> None:
    """Makes the folder, and removes what interrupted work left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = list(folder.iterdir())
    left = [e for e in entries if e.suffix == ".tfrecord" or e.name.startswith(STAGING_PREFIX)]
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


def _example(source: Dataset, split: Split, index: int, data: bytes) -> bytes:
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

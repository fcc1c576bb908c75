"""Sharded datasets: TFRecord files, with an index that locates every image in them.

    DIR/train-00000.tfrecord ...    records of tf.train.Example: `image/encoded`, the bytes of the
                                    image file; `image/filename`; `image/class/label`;
                                    `image/class/text`
    DIR/index.npz                   written last: the class names, the fingerprint, the shards and
                                    their sizes, and for each image its name, label, location and
                                    checksum

A folder is a sharded dataset if it has the index. TensorFlow reads a TFRecord file only from its
beginning; with the index, images can be read in any order.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from cnnkit._dataset_spec import SHARD_INDEX, SHARD_SUFFIX, occupied_shards_folder
from cnnkit._staging import STAGING_PREFIX, remove_abandoned, staged_file, write_error
from cnnkit._untrusted.limits import MAX_JSON_BYTES
from cnnkit._untrusted.record_lengths import check_record_lengths
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit.data.dataset import UNREADABLE, Dataset, LoadByIndex, Split, digest_times
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.data.sources.shard_index import (
    FORMAT,
    PLACE_COLUMNS,
    read_shard_index,
)
from cnnkit.errors import DataError, UsageError

SHARD_BYTES = 512 << 20
# A TFRecord is its length (8 bytes), a checksum (4), the data, and a checksum (4).
BEFORE_DATA, AROUND_DATA = 12, 16
# Larger datasets of encoded images stay on disk; the splits of smaller ones are read into memory,
# the last of them for a moment twice. 150,000 images of 64 x 64 pixels have 360 MB.
IN_MEMORY = 384 << 20


def load_shards(root: str) -> Dataset:
    """Open a folder that `write_shards` wrote.

    Raises:
        DataError: If the index or a shard is damaged or missing, or an image is too large.
    """
    index = read_shard_index(Path(root) / SHARD_INDEX, UNREADABLE)
    images = {
        name: RecordOffsets(index.files, split.file_index, split.offsets, split.lengths)
        for name, split in index.splits.items()
    }
    in_memory = fits_in_memory(images.values())
    splits = {
        name: Split.from_files(split.labels, split.names, record_reader(images[name], in_memory))
        for name, split in index.splits.items()
    }
    return Dataset(
        f"shards:{root}",
        index.class_names,
        splits,
        index.fingerprint,
        index.left_out,
        index.label_files,
        index.empty_folders,
        times_of_files(index.files),
    )


def write_shards(
    dataset: Dataset,
    output: str | Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], object] = lambda images: None,
) -> Path:
    """Write a dataset as shards; image files are copied as they are, pixels become PNG files.

    The index is written last, so an interrupted call leaves no dataset and can be repeated.

    Args:
        dataset: The dataset.
        output: Folder for the shards, new or empty.
        shard_bytes: Size in bytes after which another shard is begun.
        progress: Called with the number of images written since the last call.

    Returns:
        The index file.

    Raises:
        UsageError: If `output` has any files but those of an interrupted call.
        RunError: If the disk is full, or cannot be written.

    Example:
        >>> import tempfile
        >>> from cnnkit.data import load_dataset, write_shards
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_shards(load_dataset("digits"), folder)
        ...     len(load_dataset(f"shards:{folder}").splits["train"])
        1438
    """
    folder = Path(output)
    about = _describe(dataset)
    _clear(folder)
    shards: list[tuple[str, int]] = []
    arrays: dict[str, Any] = {}
    digest = hashlib.sha256(json.dumps(dataset.class_names).encode())
    for name, split in sorted(dataset.splits.items()):
        rows = _write_split(folder, dataset, name, shards, shard_bytes, progress)
        names = "\n".join(" ".join(text.splitlines()) for text in split.names).encode()
        arrays[f"{name}/labels"] = split.labels
        arrays[f"{name}/names"] = np.frombuffer(names, np.uint8)
        arrays[f"{name}/places"] = np.array(rows, np.int64).reshape(-1, PLACE_COLUMNS)
        # Lengths and checksums without the locations, so that the size of the shards does not
        # change the fingerprint.
        for values in (split.labels, arrays[f"{name}/names"], arrays[f"{name}/places"][:, 2:]):
            digest.update(np.ascontiguousarray(values).tobytes())
    about |= {"shards": shards, "fingerprint": digest.hexdigest()}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with staged_file(folder / SHARD_INDEX) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return folder / SHARD_INDEX


def _describe(dataset: Dataset) -> dict[str, Any]:
    """Return what the index says of a dataset, but for its shards.

    Raises:
        UsageError: If it is more than can be read again.
    """
    about = {
        "format": FORMAT,
        "source": dataset.spec,
        "labels": dataset.class_names,
        "parts": sorted(dataset.splits),
        "unreadable": dataset.unreadable,
        "left_out": dict(dataset.left_out),
        "label_files": dataset.label_files,
        "empty_folders": dataset.empty_folders,
    }
    size = len(json.dumps(about))
    if size > MAX_JSON_BYTES // 2:  # The rest is for the names of the shards.
        raise UsageError(
            f"Dataset {dataset.spec} has too many names of classes and of files that are left out",
            expected=f"at most {MAX_JSON_BYTES // 2:,} bytes of JSON",
            received=f"{size:,}",
            hint="Move the files that are not used to another folder",
        )
    return about


def _write_split(
    folder: Path,
    dataset: Dataset,
    name: str,
    shards: list[tuple[str, int]],
    shard_bytes: int,
    progress: Callable[[int], object],
) -> list[tuple[int, int, int, int]]:
    """Write the shards of a split and append their names and sizes to `shards`.

    Returns:
        For each image the index of its shard, its offset, its length and its CRC-32.
    """
    split = dataset.splits[name]
    images = enumerate(_iter_encoded(split))
    rows: list[tuple[int, int, int, int]] = []
    for number in itertools.count():  # A split without images gets one empty shard.
        shard = f"{name}-{number:05d}{SHARD_SUFFIX}"
        with staged_file(folder / shard) as aside, _write_errors(folder / shard, aside):
            size = 0
            with tf.io.TFRecordWriter(str(aside)) as writer:
                for index, data in images:
                    record = _example(dataset, split, index, data)
                    writer.write(record)
                    offset = size + BEFORE_DATA + record.index(data)
                    rows.append((len(shards), offset, len(data), zlib.crc32(data)))
                    size += len(record) + AROUND_DATA
                    progress(1)
                    if size >= shard_bytes:
                        break
        shards.append((shard, size))
        if len(rows) == len(split):
            break
    return rows


@contextmanager
def _write_errors(shard: Path, aside: Path) -> Iterator[None]:
    """Raise TensorFlow's errors about the file `aside`, but no others, as those of `shard`."""
    try:
        yield
    except tf.errors.OpError as error:
        path, _, reason = error.message.rpartition("; ")
        if str(aside) not in path:
            raise
        raise write_error(shard, OSError(None, reason)) from error


def _clear(folder: Path) -> None:
    """Create the folder, and remove the files of an interrupted call from it."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    entries = list(folder.iterdir())
    left = [e for e in entries if e.suffix == SHARD_SUFFIX or _is_old_staging(e)]
    if len(left) != len(entries):
        raise occupied_shards_folder(folder)
    for entry in left:
        entry.unlink()


def _is_old_staging(entry: Path) -> bool:
    """Return True for a file that an older version did not finish; it staged no folders."""
    return entry.name.startswith(STAGING_PREFIX) and not entry.is_dir()


def _iter_encoded(split: Split) -> Iterator[bytes]:
    load = split.load_bytes or (lambda index: tf.io.encode_png(split.load_image(index)))
    images = parallel_map(tf.data.Dataset.range(len(split)), load)
    return iter(images.prefetch(BATCHES_AHEAD).as_numpy_iterator())


def _example(dataset: Dataset, split: Split, index: int, data: bytes) -> bytes:
    label = int(split.labels[index])

    def text(value: str | bytes) -> tf.train.Feature:
        value = value if isinstance(value, bytes) else value.encode()
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "image/encoded": text(data),
        "image/filename": text(split.names[index]),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "image/class/text": text(dataset.class_names[label]),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


@dataclass(frozen=True)
class RecordOffsets:
    """Locations of n encoded images in files.

    Attributes:
        files: Paths.
        file_index: (n,) int32, the index into `files` of each image's file.
        offsets: (n,) int64, position of the first byte of each image in its file.
        lengths: (n,) int64, in bytes.
    """

    files: Sequence[str]
    file_index: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    def take(self, index: np.ndarray) -> RecordOffsets:
        """Return the locations of some of the images; `index` is an index or mask of NumPy."""
        return RecordOffsets(
            self.files, self.file_index[index], self.offsets[index], self.lengths[index]
        )


def times_of_files(files: Iterable[str]) -> str:
    """Return the digest `Dataset.modified` of shards."""
    status = [Path(file).stat() for file in files]
    return digest_times((one.st_size, one.st_mtime_ns) for one in status)


def fits_in_memory(splits: Iterable[RecordOffsets]) -> bool:
    """Return whether all splits of a dataset together are small enough to be read at once."""
    return sum(int(images.lengths.sum()) for images in splits) <= IN_MEMORY


def record_reader(images: RecordOffsets, in_memory: bool) -> LoadByIndex:
    """Return a graph function from an index, () int64, to the bytes of an image, () string.

    Args:
        images: The locations.
        in_memory: Whether the images are read at once. Otherwise Python reads each on demand, which
            costs about as much as decoding a tiny image, and little compared with a photograph.

    Raises:
        DataError: If a file has become shorter. On demand, the function itself raises
            tf.errors.InvalidArgumentError then.
    """
    if not in_memory:
        read = functools.partial(_read_image, images, functools.cache(_OpenFile))

        def load_bytes(index: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(read, [index], tf.string, stateful=False), ())

        return load_bytes
    open_file = functools.cache(_OpenFile)
    with tf.device("CPU:0"):
        # The type is given because TensorFlow makes an empty list numeric.
        files = [_read_image(images, open_file, i) for i in range(len(images.lengths))]
        table = tf.constant(files, tf.string)
    return lambda index: tf.gather(table, index)


def read_records(file: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yield the records of a TFRecord file, each with the offset of its data.

    Raises:
        DataError: If the file is not a regular one, or its records do not fill it.
        tf.errors.DataLossError: If the data of a record is damaged.
    """
    check_record_lengths(file)
    offset = BEFORE_DATA
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        yield offset, record
        offset += len(record) + AROUND_DATA


def _read_image(images: RecordOffsets, open_file: Callable[[str], _OpenFile], index: int) -> bytes:
    path, length = images.files[images.file_index[index]], int(images.lengths[index])
    data = os.pread(open_file(path).descriptor, length, int(images.offsets[index]))
    if len(data) != length:
        raise DataError(f"{path} has become shorter", hint="Restore it")
    return data


class _OpenFile:
    """An open file, closed when the object is garbage-collected."""

    def __init__(self, path: str) -> None:
        with open_regular_file(path) as file:
            self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)

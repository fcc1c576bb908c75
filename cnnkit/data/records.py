"""Encoded images that lie in large files, read by index in any order.

TensorFlow reads a file of records from its beginning only. Here the place of every image is known,
and is read by itself.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit.errors import DataError

# A TFRecord is its length (8 bytes), a checksum (4), the data, and a checksum (4).
BEFORE_DATA, AROUND_DATA = 12, 16
# Bytes of encoded images that are kept in memory rather than on disk.
IN_MEMORY = 1 << 30


@dataclass(frozen=True)
class Places:
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

    def take(self, index: np.ndarray) -> Places:
        """Returns the places of some of the images."""
        return Places(self.files, self.file[index], self.offset[index], self.length[index])


def reader(places: Places) -> Callable[[tf.Tensor], tf.Tensor]:
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


def _read(places: Places, descriptor: Callable[[str], _Descriptor], index: int) -> bytes:
    path, length = places.files[places.file[index]], int(places.length[index])
    data = os.pread(descriptor(path).number, length, int(places.offset[index]))
    if len(data) != length:
        raise DataError(f"{path} has become shorter", hint="Restore it")
    return data


def records(file: str | Path) -> Iterator[tuple[int, bytes]]:
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

"""Which images of one set are in another too, by normalized correlation (ZF 2013, section 4.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import tensorflow as tf

from cnnkit.data import Dataset, Split, report_undecodable
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.data.sources.voc import MultiLabelDataset
from cnnkit.errors import UsageError

# The paper names neither. Small enough that another size or quality of the same picture agrees,
# large enough that other pictures of the same kind do not.
SIDE = 32
THRESHOLD = 0.95
BATCH = 256
# Correlations in memory at a time.
BLOCK = 1 << 22
# Of float32: an image equals itself only to within that.
ROUNDING = 1e-6

DatasetT = TypeVar("DatasetT", Dataset, MultiLabelDataset)


@dataclass(frozen=True)
class DuplicatePair:
    """An image of the first set and what is most like it in the second.

    Attributes:
        index: Place in the first set.
        name: Its name there.
        other: Name in the second set.
        correlation: Of the two, -1..1.
    """

    index: int
    name: str
    other: str
    correlation: float


def find_duplicates(
    first: Split, second: Split, threshold: float = THRESHOLD
) -> list[DuplicatePair]:
    """Finds the images of one set that are in another, perhaps re-encoded or rescaled.

    Every image becomes a gray picture of 32 x 32 pixels, of mean 0 and length 1; the products of
    all pairs are their normalized correlations. They are made block by block: never all at once.

    Args:
        first: Images that are looked for.
        second: Images in which they are looked for.
        threshold: Correlation from which two images are the same, above 0 and at most 1. A picture
            of one color correlates with nothing.

    Returns:
        A pair for each image of the first set that is in the second, by its place.

    Raises:
        UsageError: If the threshold is out of range.
        DataError: If an image cannot be decoded.

    Example:
        >>> from cnnkit.data import load_dataset
        >>> from cnnkit.transfer import find_duplicates
        >>> digits = load_dataset("digits").splits
        >>> [pair.correlation for pair in find_duplicates(digits["test"], digits["train"], 0.999)]
        []
    """
    _check(threshold)
    return _pairs(first, second.names, thumbnails(second), threshold)


def drop_duplicates(
    source: DatasetT, others: Iterable[Split], threshold: float = THRESHOLD
) -> tuple[DatasetT, list[DuplicatePair]]:
    """Returns a dataset without the images that are in other sets too, and which those are.

    Args:
        source: The dataset; images are left out of each of its splits.
        others: The sets in which they are looked for.
        threshold: As `overlap`.

    Raises:
        UsageError: If the threshold is out of range.
        DataError: If an image cannot be decoded.
    """
    _check(threshold)
    others = list(others)
    names = [name for other in others for name in other.names]
    theirs = np.concatenate([thumbnails(other) for other in others])
    digest = hashlib.sha256(source.fingerprint.encode())
    kept, found = {}, []
    for name, split in source.splits.items():
        pairs = _pairs(split, names, theirs, threshold)
        kept[name] = np.delete(np.arange(len(split)), [pair.index for pair in pairs])
        digest.update(f"{name} {kept[name].tolist()}".encode())
        found += pairs
    if not found:
        return source, found
    changes = {
        "splits": {name: source.splits[name].subset(places) for name, places in kept.items()},
        "fingerprint": digest.hexdigest(),
    }
    if isinstance(source, MultiLabelDataset):
        changes["voc_labels"] = {
            name: source.voc_labels[name][places] for name, places in kept.items()
        }
    return replace(source, **changes), found


def thumbnails(split: Split) -> np.ndarray:
    """Returns the images as gray pictures of mean 0 and length 1, (n, 1024) float32.

    Those of one color are all zero.
    """

    def load(index):
        image = tf.cast(split.load_image(index), tf.float32)
        small = tf.image.resize(image, (SIDE, SIDE), method="area")
        return tf.reshape(tf.reduce_mean(small, axis=-1), [SIDE * SIDE])

    dataset = parallel_map(tf.data.Dataset.range(len(split)), load)
    dataset = dataset.batch(BATCH).prefetch(BATCHES_AHEAD)
    values = np.empty((len(split), SIDE * SIDE), np.float32)
    start = 0
    with report_undecodable(split):
        for batch in dataset.as_numpy_iterator():
            values[start : start + len(batch)] = batch
            start += len(batch)
    values -= values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    # Rounding of the mean leaves something of a picture of one color.
    flat = lengths < 1e-3 * SIDE
    return np.where(flat, 0, values / np.where(flat, 1, lengths))


def _pairs(
    first: Split, names: Sequence[str], theirs: np.ndarray, threshold: float
) -> list[DuplicatePair]:
    mine = thumbnails(first)
    best = np.full(len(mine), -np.inf, np.float32)
    place = np.zeros(len(mine), np.int64)
    rows = max(1, BLOCK // max(1, len(mine)))
    for start in range(0, len(theirs), rows):
        products = mine @ theirs[start : start + rows].T
        nearest = products.argmax(axis=1)
        value = products[np.arange(len(mine)), nearest]
        better = value > best
        best[better], place[better] = value[better], start + nearest[better]
    same = np.flatnonzero(best >= threshold - ROUNDING)
    return [
        DuplicatePair(int(i), first.names[i], names[place[i]], min(1.0, float(best[i])))
        for i in same
    ]


def _check(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise UsageError(
            "A correlation says what is the same", expected="above 0, at most 1", received=threshold
        )

"""Near-duplicate images of two datasets, found by normalized correlation.

Zeiler & Fergus 2013, section 5.2, remove such images from the training set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from cnnkit.data import Dataset, Split, report_undecodable
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.data.sources.voc import MultiLabelDataset
from cnnkit.errors import UsageError

# The paper names neither value. The side is small enough that another size or quality of the same
# image agrees, and large enough that other images of the same kind do not.
SIDE = 32
THRESHOLD = 0.95
BATCH = 256
# Number of correlations in memory at a time.
BLOCK = 1 << 22
# In float32 an image correlates with itself to within this of 1.
ROUNDING = 1e-6

DatasetT = TypeVar("DatasetT", bound=Dataset | MultiLabelDataset)


@dataclass(frozen=True)
class DuplicatePair:
    """An image of the first set and the most similar image of the second.

    Attributes:
        index: Index in the first set.
        name: Name in the first set.
        other: Name in the second set.
        correlation: Their normalized correlation, -1..1.
    """

    index: int
    name: str
    other: str
    correlation: float


def find_duplicates(
    first: Split, second: Split, threshold: float = THRESHOLD
) -> list[DuplicatePair]:
    """Find the images of one set that are also in another, possibly re-encoded or rescaled.

    Every image becomes a gray thumbnail of 32 x 32 pixels, of mean 0 and length 1; the products of
    all pairs are their normalized correlations. They are computed in blocks, never all at once.

    Args:
        first: Images that are looked up.
        second: Images in which they are looked up.
        threshold: Correlation from which two images are duplicates, above 0 and at most 1. An
            image of one color has no duplicates.

    Returns:
        A pair for each image of the first set that is in the second, in ascending index.

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
    _check_threshold(threshold)
    return _pairs(first, second.names, thumbnails(second), threshold)


def drop_duplicates(
    dataset: DatasetT, others: Iterable[Split], threshold: float = THRESHOLD
) -> tuple[DatasetT, list[DuplicatePair]]:
    """Remove the images of a dataset that are also in other sets.

    Args:
        dataset: The dataset; images are removed from each of its splits.
        others: The sets in which they are looked up.
        threshold: Correlation from which two images are duplicates, above 0 and at most 1.

    Returns:
        The dataset without the duplicates, and a pair for each duplicate.

    Raises:
        UsageError: If the threshold is out of range.
        DataError: If an image cannot be decoded.
    """
    _check_threshold(threshold)
    others = list(others)
    names = [name for other in others for name in other.names]
    theirs = np.concatenate([thumbnails(other) for other in others])
    digest = hashlib.sha256(dataset.fingerprint.encode())
    kept, duplicates = {}, []
    for name, split in dataset.splits.items():
        pairs = _pairs(split, names, theirs, threshold)
        kept[name] = np.delete(np.arange(len(split)), [pair.index for pair in pairs])
        digest.update(f"{name} {kept[name].tolist()}".encode())
        duplicates += pairs
    if not duplicates:
        return dataset, duplicates
    changes: dict[str, Any] = {
        "splits": {name: dataset.splits[name].subset(places) for name, places in kept.items()},
        "fingerprint": digest.hexdigest(),
    }
    if isinstance(dataset, MultiLabelDataset):
        changes["voc_labels"] = {
            name: dataset.voc_labels[name][places] for name, places in kept.items()
        }
    return replace(dataset, **changes), duplicates


def thumbnails(split: Split) -> np.ndarray:
    """Return gray thumbnails of mean 0 and length 1, (n, 1024) float32.

    The thumbnail of an image of one color is all zero.
    """

    def load(index: tf.Tensor) -> tf.Tensor:
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
    # The mean is rounded, so that an image of one color is not exactly zero.
    flat = lengths < 1e-3 * SIDE
    return np.where(flat, 0, values / np.where(flat, 1, lengths))


def _pairs(
    first: Split, names: Sequence[str], theirs: np.ndarray, threshold: float
) -> list[DuplicatePair]:
    mine = thumbnails(first)
    best = np.full(len(mine), -np.inf, np.float32)
    best_index = np.zeros(len(mine), np.int64)
    rows = max(1, BLOCK // max(1, len(mine)))
    for start in range(0, len(theirs), rows):
        products = mine @ theirs[start : start + rows].T
        nearest = products.argmax(axis=1)
        correlation = products[np.arange(len(mine)), nearest]
        better = correlation > best
        best[better], best_index[better] = correlation[better], start + nearest[better]
    same = np.flatnonzero(best >= threshold - ROUNDING)
    return [
        DuplicatePair(int(i), first.names[i], names[best_index[i]], min(1.0, float(best[i])))
        for i in same
    ]


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise UsageError("`threshold` must be above 0, at most 1", received=threshold)

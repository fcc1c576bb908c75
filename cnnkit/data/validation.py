"""Reading a whole dataset once, to know it before training on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from cnnkit.data.dataset import Dataset, Split
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.errors import DataError

BATCH = 64


@dataclass(frozen=True)
class SideRange:
    """The smallest, the median and the largest side of images, in pixels."""

    smallest: int
    median: int
    largest: int


@dataclass(frozen=True)
class SplitReport:
    """What was found in a split.

    Attributes:
        images: Number of images that could be read.
        classes: Images of each class, by its name.
        height: Of the images; None if there are none.
        width: Of the images; None if there are none.
        unreadable: Names of the images that could not be read.
    """

    images: int
    classes: dict[str, int]
    height: SideRange | None
    width: SideRange | None
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class DatasetReport:
    """What was found in a dataset.

    Attributes:
        splits: By name.
        left_out: Files that were left out when the dataset was opened, because they are no images.
        duplicates: Pairs of names: the first image of the training split with these pixels, and
            an image of the test split with the same.
    """

    splits: dict[str, SplitReport]
    left_out: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]

    @property
    def sound(self) -> bool:
        """Whether every image could be read and no test image is a training image."""
        unreadable = any(split.unreadable for split in self.splits.values())
        return not (self.left_out or self.duplicates or unreadable)


def check_dataset(
    source: Dataset, *, progress: Callable[[int], object] = lambda images: None
) -> DatasetReport:
    """Decodes every image of a dataset once, on all cores.

    Args:
        source: The dataset.
        progress: Called with the number of images that were read since the last call.

    Raises:
        DataError: If a split is empty.

    Example:
        >>> from cnnkit.data import check_dataset, load_dataset
        >>> report = check_dataset(load_dataset("digits"))
        >>> report.splits["train"].images, report.splits["train"].height
        (1438, Sides(smallest=8, median=8, largest=8))
        >>> report.sound
        True
    """
    splits, seen = {}, {}
    for part, split in source.splits.items():
        if not len(split):
            raise DataError(f"The split {part} of {source.spec} is empty")
        rows = _read_all(split, progress)
        splits[part] = _report(split, source.labels, rows)
        seen[part] = {}
        for index, pixels in zip(rows["index"], rows["pixels"], strict=True):
            seen[part].setdefault(pixels.tobytes(), []).append(split.names[index])
    duplicates = tuple(
        (seen["train"][pixels][0], name)
        for pixels, names in seen["test"].items()
        if pixels in seen["train"]
        for name in names
    )
    return DatasetReport(splits, source.unreadable, duplicates)


def _read_all(split: Split, progress: Callable[[int], object]) -> dict[str, np.ndarray]:
    """Returns `index`, `sides` and `pixels`, a digest, of all images that can be read."""

    def facts(index):
        image = split.read(index)
        sides = tf.shape(image)[:2]
        digest = tf.raw_ops.Fingerprint(data=tf.reshape(image, (1, -1)), method="farmhash64")[0]
        # Two images of other sides may have the same pixels in a row.
        pixels = tf.concat([digest, tf.bitcast(sides[0], tf.uint8)], axis=0)
        return {"index": index, "sides": sides, "pixels": pixels}

    dataset = parallel_map(tf.data.Dataset.range(len(split)), facts).ignore_errors()
    rows = [{"index": np.zeros(0, int), "sides": np.zeros((0, 2)), "pixels": np.zeros((0, 12))}]
    for batch in dataset.batch(BATCH).prefetch(BATCHES_AHEAD).as_numpy_iterator():
        rows.append(batch)
        progress(len(batch["index"]))
    return {name: np.concatenate([row[name] for row in rows[len(rows) > 1 :]]) for name in rows[0]}


def _report(split: Split, labels: tuple[str, ...], rows: dict[str, np.ndarray]) -> SplitReport:
    counts = np.bincount(split.labels[rows["index"]], minlength=len(labels))
    broken = np.setdiff1d(np.arange(len(split)), rows["index"])
    height, width = (_sides(values) for values in rows["sides"].T)
    return SplitReport(
        images=len(rows["index"]),
        classes={name: int(count) for name, count in zip(labels, counts, strict=True)},
        height=height,
        width=width,
        unreadable=tuple(split.names[i] for i in broken),
    )


def _sides(values: np.ndarray) -> SideRange | None:
    if not len(values):
        return None
    return SideRange(int(values.min()), int(np.median(values)), int(values.max()))

"""Validation of a whole dataset before training: unreadable files, duplicates, sizes, classes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from cnnkit._untrusted.images import max_image_pixels
from cnnkit.data.dataset import Dataset, Split
from cnnkit.data.decode import TRAITS, find_traits
from cnnkit.data.file_functions import OfBytes, call_function
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.errors import DataError

BATCH_SIZE = 64


@dataclass(frozen=True)
class SideRange:
    """Smallest, median and largest side of images, in pixels."""

    smallest: int
    median: int
    largest: int


@dataclass(frozen=True)
class SplitReport:
    """Result of the validation of a split.

    Attributes:
        images: Number of readable images.
        classes: Number of readable images of each class, by class name.
        height: Range of the heights; None if no image is readable.
        width: Range of the widths; None if no image is readable.
        unreadable: Names of the unreadable images.
        traits: Names of the images with EXIF orientation, transparency, four colors or several
            pictures, by trait.
    """

    images: int
    classes: dict[str, int]
    height: SideRange | None
    width: SideRange | None
    unreadable: tuple[str, ...]
    traits: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class DatasetReport:
    """Result of the validation of a dataset.

    Attributes:
        splits: Report of each split, by name.
        files: Number of files found below the dataset's folder; for a dataset without a folder,
            the number of images.
        left_out: Names of the files that were left out when the dataset was opened, by reason.
        label_files: Names of the files that labels were read from.
        empty_folders: Names of the folders in the place of a class folder without any image.
        duplicates: Pairs of names: the first training image with the pixels of a test image, and
            that test image.
    """

    splits: dict[str, SplitReport]
    files: int
    left_out: Mapping[str, tuple[str, ...]]
    label_files: tuple[str, ...]
    empty_folders: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]

    @property
    def passed(self) -> bool:
        """True if every file is a readable image that is used, and no test image is in training."""
        unreadable = any(split.unreadable for split in self.splits.values())
        return not (
            any(self.left_out.values()) or self.empty_folders or self.duplicates or unreadable
        )


def check_dataset(
    dataset: Dataset, *, progress: Callable[[int], object] = lambda images: None
) -> DatasetReport:
    """Decode every image of a dataset once, on all cores, and report its defects.

    Args:
        dataset: The dataset.
        progress: Called with the number of images read since the last call.

    Raises:
        DataError: If a split is empty.

    Example:
        >>> from cnnkit.data import check_dataset, load_dataset
        >>> report = check_dataset(load_dataset("digits"))
        >>> report.splits["train"].images, report.splits["train"].height
        (1438, SideRange(smallest=8, median=8, largest=8))
        >>> report.passed
        True
    """
    splits: dict[str, SplitReport] = {}
    by_pixels: dict[str, dict[bytes, list[str]]] = {}
    for name, split in dataset.splits.items():
        if not len(split):
            raise DataError(f"The split {name} of {dataset.spec} is empty")
        rows = _decode_all(split, progress)
        splits[name] = _split_report(split, dataset.class_names, rows)
        by_pixels[name] = {}
        for index, pixels in zip(rows["index"], rows["pixels"], strict=True):
            by_pixels[name].setdefault(pixels.tobytes(), []).append(split.names[index])
    duplicates = tuple(
        (by_pixels["train"][pixels][0], name)
        for pixels, names in by_pixels["test"].items()
        if pixels in by_pixels["train"]
        for name in names
    )
    files = sum(map(len, dataset.splits.values())) + sum(map(len, dataset.left_out.values()))
    return DatasetReport(
        splits,
        files + len(dataset.label_files),
        dataset.left_out,
        dataset.label_files,
        dataset.empty_folders,
        duplicates,
    )


def _decode_all(split: Split, progress: Callable[[int], object]) -> dict[str, np.ndarray]:
    """Return `index`, `sides`, `traits` and `pixels`, a digest, of all readable images."""
    no_traits = tf.zeros((len(TRAITS),), tf.bool)
    traits_of = _traits_function(max_image_pixels())

    def measure(index: tf.Tensor) -> dict[str, tf.Tensor]:
        image = split.load_image(index)
        sides = tf.shape(image)[:2]
        # A public operation without a function of its own in TensorFlow 2.21.
        digest = tf.raw_ops.Fingerprint(data=tf.reshape(image, (1, -1)), method="farmhash64")[0]
        # The height is part of the digest: images of two shapes may have the same bytes.
        pixels = tf.concat([digest, tf.bitcast(sides[0], tf.uint8)], axis=0)
        traits = no_traits
        if split.load_bytes is not None:
            traits = call_function(traits_of, split.load_bytes(index), portable=False)
        return {"index": index, "sides": sides, "pixels": pixels, "traits": traits}

    dataset = parallel_map(tf.data.Dataset.range(len(split)), measure).ignore_errors()
    empty = {"index": np.zeros(0, int), "sides": np.zeros((0, 2)), "pixels": np.zeros((0, 12))}
    empty["traits"] = np.zeros((0, len(TRAITS)), bool)
    rows = []
    for batch in dataset.batch(BATCH_SIZE).prefetch(BATCHES_AHEAD).as_numpy_iterator():
        rows.append(batch)
        progress(len(batch["index"]))
    return {name: np.concatenate([row[name] for row in rows or [empty]]) for name in empty}


@functools.cache
def _traits_function(max_pixels: int) -> OfBytes:
    """Return `find_traits` for a limit, which is part of its graph."""
    return functools.partial(find_traits, max_pixels=max_pixels)


def _split_report(
    split: Split, class_names: tuple[str, ...], rows: dict[str, np.ndarray]
) -> SplitReport:
    counts = np.bincount(split.labels[rows["index"]], minlength=len(class_names))
    unreadable = np.setdiff1d(np.arange(len(split)), rows["index"])
    height, width = (_side_range(values) for values in rows["sides"].T)
    return SplitReport(
        images=len(rows["index"]),
        classes={name: int(count) for name, count in zip(class_names, counts, strict=True)},
        height=height,
        width=width,
        unreadable=tuple(split.names[i] for i in unreadable),
        traits={
            trait: tuple(split.names[i] for i in rows["index"][found])
            for trait, found in zip(TRAITS, rows["traits"].T, strict=True)
            if found.any()
        },
    )


def _side_range(values: np.ndarray) -> SideRange | None:
    if not len(values):
        return None
    return SideRange(int(values.min()), int(np.median(values)), int(values.max()))

"""Batches of images for feature extraction: center crops, or whole images grouped by shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit._untrusted.images import check_image_file
from cnnkit.data import Augmentation, Dataset, Split, batches, report_undecodable
from cnnkit.data.crops import array_window_reader
from cnnkit.data.multi_crop import CropSpec, extract_crops
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.errors import UsageError, unknown_name

ALL = "all"
# `batch_size` counts images of this many pixels; a batch of larger images has fewer.
DEFAULT_BATCH_PIXELS = 224 * 224

# Positions in `order`, (n,) int, and the images at every side, (n, h, w, 3) float32 RGB 0..255.
Batch = tuple[np.ndarray, list[np.ndarray]]
# A function from an index to an image, or to the bytes of its file.
Load = Callable[[tf.Tensor], tf.Tensor]


def select_features_split(dataset: Dataset, name: str = ALL) -> Split:
    """Return a split of a dataset by name; `"all"` is the training images, then the test images.

    Raises:
        UsageError: If the dataset has no split of this name.
    """
    if name in dataset.splits:
        return dataset.splits[name]
    if name != ALL:
        raise unknown_name("split", name, [*dataset.splits, ALL])
    return _concatenate(dataset.splits["train"], dataset.splits["test"])


def split_from_files(files: Sequence[str | Path]) -> Split:
    """Return image files as a split; every label is 0.

    Raises:
        UsageError: If a file does not exist.
        DataError: If a file is too large.
    """
    names = [str(file) for file in files]
    for name in names:
        if not Path(name).is_file():
            raise UsageError(f"No image file {name}")
        check_image_file(name)
    with tf.device("CPU:0"):
        table = tf.constant(names)
    labels = np.zeros(len(names), np.int32)
    return Split.from_files(labels, names, lambda index: tf.io.read_file(tf.gather(table, index)))


def iter_center_crops(
    split: Split, order: np.ndarray, side: int, batch_size: int
) -> Iterator[Batch]:
    """Yield center crops in batches of one size; the last batch is filled with repeated rows."""
    start = 0
    augmentation = Augmentation(side)
    with report_undecodable(split):
        for batch in batches(split, augmentation=augmentation, batch_size=batch_size, order=order):
            count = int(batch["weights"].numpy().sum())
            yield np.arange(start, start + count), [batch["images"]]
            start += count


def iter_full_images(
    split: Split, order: np.ndarray, sides: Sequence[int], batch_size: int
) -> Iterator[Batch]:
    """Yield whole images, rescaled to each of the shorter `sides`, in batches of one shape.

    Every image is read and decoded once. At most two batches of images are held back until there
    are enough of their shape.
    """

    def load(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = split.load_image(index)
        read = array_window_reader(image)
        return tuple(extract_crops(read, tf.shape(image)[:2], CropSpec(side))[0] for side in sides)

    dataset = parallel_map(tf.data.Dataset.from_tensor_slices(order), load)
    waiting: dict[tuple[tuple[int, ...], ...], list[tuple[int, list[np.ndarray]]]] = {}
    count = 0
    with report_undecodable(split):
        for row, images in enumerate(dataset.prefetch(BATCHES_AHEAD).as_numpy_iterator()):
            # The shape at every scale: images that agree at one may be rounded apart at another.
            shape = tuple(image.shape for image in images)
            group = waiting.setdefault(shape, [])
            group.append((row, list(images)))
            count += 1
            if len(group) >= _max_group_size(shape, batch_size):
                yield _stack(waiting.pop(shape))
                count -= len(group)
            elif count >= 2 * batch_size:
                # The largest group frees the most memory per call of the network.
                largest = max(waiting, key=lambda key: len(waiting[key]))
                count -= len(waiting[largest])
                yield _stack(waiting.pop(largest))
    for group in waiting.values():
        yield _stack(group)


def _concatenate(first: Split, second: Split) -> Split:
    count = len(first)

    def select(of_first: Load, of_second: Load) -> Load:
        return lambda index: tf.cond(
            index < count, lambda: of_first(index), lambda: of_second(index - count)
        )

    labels = np.concatenate([first.labels, second.labels])
    names = (*first.names, *second.names)
    if first.load_bytes is not None and second.load_bytes is not None:
        load_bytes = select(first.load_bytes, second.load_bytes)
        return Split.from_files(labels, names, load_bytes, first.decoding)
    return Split(
        labels, names, select(first.load_image, second.load_image), decoding=first.decoding
    )


def _max_group_size(shapes: tuple[tuple[int, ...], ...], batch_size: int) -> int:
    pixels = max(height * width for height, width, _ in shapes)
    return max(1, batch_size * DEFAULT_BATCH_PIXELS // pixels)


def _stack(group: list[tuple[int, list[np.ndarray]]]) -> Batch:
    rows = np.array([row for row, _ in group])
    return rows, [np.stack(images) for images in zip(*(images for _, images in group), strict=True)]

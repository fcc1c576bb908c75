"""The images that features are made of: centers in batches, or whole images by their shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit.data import Augmentation, Dataset, Split, batches, decode_image, report_undecodable
from cnnkit.data.crops import array_window_reader
from cnnkit.data.multi_crop import CropSpec, extract_crops
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.errors import UsageError, unknown_name

ALL = "all"
# Pixels of an image that a batch size is meant for; of larger images fewer are taken at a time.
DEFAULT_BATCH_PIXELS = 224 * 224

# Positions in the order, and the images at every side, (n, h, w, 3) float32 RGB 0..255.
Batch = tuple[np.ndarray, list[np.ndarray]]


def select_features_split(source: Dataset, name: str = ALL) -> Split:
    """Returns a split of a dataset; `"all"` is its training images and then its test images.

    Raises:
        UsageError: If there is no such split.
    """
    if name in source.splits:
        return source.splits[name]
    if name != ALL:
        raise unknown_name("split", name, [*source.splits, ALL])
    return _joined(source.splits["train"], source.splits["test"])


def split_from_files(files: Sequence[str | Path]) -> Split:
    """Returns image files as a split; every label is 0.

    Raises:
        UsageError: If one of them does not exist.
    """
    names = [str(file) for file in files]
    for name in names:
        if not Path(name).is_file():
            raise UsageError(f"No image file {name}")
    with tf.device("CPU:0"):
        table = tf.constant(names)
    labels = np.zeros(len(names), np.int32)
    return Split.from_files(labels, names, lambda index: tf.io.read_file(tf.gather(table, index)))


def iter_center_crops(
    split: Split, order: np.ndarray, side: int, batch_size: int
) -> Iterator[Batch]:
    """Yields the centers of images in batches of one size; the last one has rows that repeat."""
    place = 0
    augmentation = Augmentation(side)
    with report_undecodable(split):
        for batch in batches(split, augmentation=augmentation, batch_size=batch_size, order=order):
            count = int(batch["weights"].numpy().sum())
            yield np.arange(place, place + count), [batch["images"]]
            place += count


def iter_full_images(
    split: Split, order: np.ndarray, sides: Sequence[int], batch_size: int
) -> Iterator[Batch]:
    """Yields whole images, rescaled to each of the shorter `sides`; those of one shape together.

    Every image is read and decoded once. At most two batches of images wait for others of their
    shape.
    """

    def load(index):
        image = split.load_image(index)
        read = array_window_reader(image)
        return tuple(extract_crops(read, tf.shape(image)[:2], CropSpec(side))[0] for side in sides)

    dataset = parallel_map(tf.data.Dataset.from_tensor_slices(order), load)
    waiting: dict[tuple, list[tuple[int, list[np.ndarray]]]] = {}
    count = 0
    with report_undecodable(split):
        for place, images in enumerate(dataset.prefetch(BATCHES_AHEAD).as_numpy_iterator()):
            # At every scale: rounding may part images that agree at one.
            shape = tuple(image.shape for image in images)
            group = waiting.setdefault(shape, [])
            group.append((place, list(images)))
            count += 1
            if len(group) >= _most(shape, batch_size):
                yield _together(waiting.pop(shape))
                count -= len(group)
            elif count >= 2 * batch_size:
                # The largest group frees the most memory for one call of the network.
                largest = max(waiting, key=lambda key: len(waiting[key]))
                count -= len(waiting[largest])
                yield _together(waiting.pop(largest))
    for group in waiting.values():
        yield _together(group)


def _joined(first: Split, second: Split) -> Split:
    count = len(first)

    def either(of_first, of_second):
        return lambda index: tf.cond(
            index < count, lambda: of_first(index), lambda: of_second(index - count)
        )

    labels = np.concatenate([first.labels, second.labels])
    names = (*first.names, *second.names)
    if first.load_bytes is not None and second.load_bytes is not None:
        encoded = either(first.load_bytes, second.load_bytes)
        return Split(labels, names, lambda index: decode_image(encoded(index)), encoded)
    return Split(labels, names, either(first.load_image, second.load_image))


def _most(shapes: tuple[tuple[int, ...], ...], batch_size: int) -> int:
    pixels = max(height * width for height, width, _ in shapes)
    return max(1, batch_size * DEFAULT_BATCH_PIXELS // pixels)


def _together(group: list[tuple[int, list[np.ndarray]]]) -> Batch:
    places = np.array([place for place, _ in group])
    return places, [
        np.stack(images) for images in zip(*(images for _, images in group), strict=True)
    ]

"""What a dataset is to the rest of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from cnnkit.data.decode import decode_image

TEST_FRACTION = 0.2
# A few broken files are the rule in collected images; more of them is a wrong folder.
MAX_UNREADABLE_NAMED = 0.01


@dataclass(frozen=True)
class Split:
    """Labelled images that are read by index, in any order.

    Attributes:
        labels: (n,) int32, an index into the source's labels.
        names: One name for every image, for messages and file names.
        read: Graph function from an index, () int64, to an image, (h, w, 3) uint8 RGB.
        encoded: Graph function from an index, () int64, to the bytes of its file, () string; None
            where there are no files, or their pixels are at hand.
        pixels: (n, h, w, 3) uint8 RGB where all images are in memory, else None.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    read: Callable[[tf.Tensor], tf.Tensor]
    encoded: Callable[[tf.Tensor], tf.Tensor] | None = None
    pixels: tf.Tensor | None = None

    @classmethod
    def of_pixels(cls, labels: np.ndarray, names: Sequence[str], pixels: np.ndarray) -> Split:
        """Returns the split of images that are in memory, (n, h, w, 3) uint8."""
        with tf.device("CPU:0"):
            table = tf.constant(pixels)
        return cls(labels, tuple(names), lambda index: tf.gather(table, index), pixels=table)

    @classmethod
    def of_files(
        cls, labels: np.ndarray, names: Sequence[str], encoded: Callable[[tf.Tensor], tf.Tensor]
    ) -> Split:
        """Returns the split whose images are decoded from what `encoded` gives."""
        return cls(labels, tuple(names), lambda index: decode_image(encoded(index)), encoded)

    def subset(self, places: np.ndarray) -> Split:
        """Returns some of the images, in the order of their places, (m,) int."""
        with tf.device("CPU:0"):
            table = tf.constant(np.asarray(places, np.int64))
        read, encoded = self.read, self.encoded
        return Split(
            self.labels[places],
            tuple(self.names[place] for place in places),
            lambda index: read(tf.gather(table, index)),
            None if encoded is None else lambda index: encoded(tf.gather(table, index)),
            None if self.pixels is None else tf.gather(self.pixels, table),
        )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A dataset.

    Attributes:
        spec: How it was asked for: see `cnnkit.data.load_dataset`.
        labels: Names of the classes.
        splits: `train` and `test`.
        fingerprint: Changes when the list of images, a label or a split changes.
        unreadable: Files that were left out because they are no images.
    """

    spec: str
    labels: tuple[str, ...]
    splits: Mapping[str, Split]
    fingerprint: str
    unreadable: tuple[str, ...] = ()


def stratified_holdout(
    labels: np.ndarray, seed: int, fraction: float = TEST_FRACTION
) -> np.ndarray:
    """Chooses the test images of a dataset that comes without a test split.

    Args:
        labels: (n,) int, the class of each image.
        seed: Decides which images of each class.
        fraction: Part of each class, at least one image of every class that has two.

    Returns:
        (n,) bool, true for the test images.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(round(fraction * len(of_class)), min(1, len(of_class) - 1))
        order = np.random.default_rng((seed, int(label))).permutation(len(of_class))
        chosen[of_class[order[:count]]] = True
    return chosen

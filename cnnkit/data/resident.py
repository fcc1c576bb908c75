"""Small datasets stay in memory: their files are read and decoded once a run, not once an epoch."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from cnnkit.data.broken import naming_broken_images
from cnnkit.data.split import Split
from cnnkit.data.workers import parallel_map

# Room for CIFAR's 50,000 images and some; large photographs are read when they are shown.
MOST_BYTES = 256 * 2**20


def resident(split: Split, *, most_bytes: int = MOST_BYTES) -> Split:
    """Returns a split with its pixels in memory, if they fit and all images have one size.

    Args:
        split: Any split.
        most_bytes: What the decoded images may take.

    Returns:
        The same images, labels and names; `split` itself where it stays as it is.

    Raises:
        DataError: If an image cannot be decoded; it is named.

    Example:
        >>> from cnnkit.data import load_source
        >>> digits = load_source("digits").splits["test"]
        >>> resident(digits).pixels.shape
        TensorShape([359, 8, 8, 3])
    """
    if split.pixels is not None or not len(split):
        return split
    with naming_broken_images(split):
        shape = tuple(split.read(tf.constant(0, tf.int64)).shape)
        if len(split) * math.prod(shape) > most_bytes:
            return split
        pixels = np.empty((len(split), *shape), np.uint8)
        images = parallel_map(tf.data.Dataset.range(len(split)), split.read)
        for index, image in enumerate(images.as_numpy_iterator()):
            if image.shape != shape:
                return split
            pixels[index] = image
    return Split.of_pixels(split.labels, split.names, pixels)

"""Telling which image it is that cannot be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from cnnkit.data.split import Split
from cnnkit.data.workers import parallel_map
from cnnkit.errors import DataError

NAMED_IN_ERROR = 3


@contextmanager
def naming_broken_images(split: Split) -> Iterator[None]:
    """Around work on a split's batches: an image that cannot be decoded is an error with its name.

    TensorFlow's own error does not tell which file it was. Only when it occurs, all images are
    tried.

    Args:
        split: Where the images come from.

    Raises:
        DataError: If an image cannot be decoded.

    Example:
        >>> from cnnkit.data import Augmentation, batches, load_source
        >>> digits = load_source("digits").splits["test"]
        >>> with naming_broken_images(digits):
        ...     len(list(batches(digits, augmentation=Augmentation(8), batch_size=100)))
        4
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        broken = _broken(split)
        if not broken:
            raise
        raise DataError(
            f"{len(broken)} of the images cannot be decoded",
            received=", ".join(broken[:NAMED_IN_ERROR]),
            hint="Remove or repair them: `cnnkit data check` names them all",
        ) from error


def _broken(split: Split) -> list[str]:
    """Returns the names of the images that cannot be decoded."""

    def index_if_image(index):
        # The pixels tie the decoding into the graph; only the index is kept.
        return index + 0 * tf.size(split.read(index), out_type=tf.int64)

    dataset = parallel_map(tf.data.Dataset.range(len(split)), index_if_image).ignore_errors()
    good = list(dataset.as_numpy_iterator())
    return [split.names[i] for i in np.setdiff1d(np.arange(len(split)), good)]

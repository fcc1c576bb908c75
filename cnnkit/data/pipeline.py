"""From a split to batches: the order first, the pixels later.

The order of an epoch is a permutation drawn from (seed, epoch). Steps are cut from it before any
image is read, so the batches depend neither on threads nor on the number of replicas, and a resumed
run begins at its step without reading what came before. What is random about an image is drawn
beforehand too, from (seed, epoch, index).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from cnnkit.data.augmentation import Augmentation, sample_augmentation
from cnnkit.data.crops import augment_image
from cnnkit.data.dataset import Split
from cnnkit.data.decode import augment_bytes
from cnnkit.errors import DataError, UsageError

WORKERS = os.cpu_count() or 1
BATCHES_AHEAD = 2


def fixed_parallelism() -> tf.data.Options:
    """Returns the options that switch TensorFlow's tuning off."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def parallel_map(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """Maps a dataset in its order on all cores, without TensorFlow's tuning.

    The function is a graph function as it stands: AutoGraph does not rewrite it.
    """
    function = tf.autograph.experimental.do_not_convert(function)
    mapped = dataset.map(function, num_parallel_calls=WORKERS, deterministic=True)
    return mapped.with_options(fixed_parallelism())


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of `count` images in one epoch, a permutation, (count,) int64."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def step_count(images: int, batch_size: int) -> int:
    """Returns the number of steps that show `images` once, the last one perhaps smaller."""
    return -(-images // batch_size)


def batches(
    split: Split,
    *,
    augmentation: Augmentation,
    batch_size: int,
    order: np.ndarray | None = None,
    seed: int = 0,
    epoch: int = 0,
    first_step: int = 0,
    replicas: int = 1,
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Cuts a split into batches of one shape.

    Every batch has the same number of rows, divisible by the replicas: what is missing is filled up
    with rows of weight 0, which count for nothing in a weighted mean.

    Image i of an epoch is augmented the same way whatever the order, the batch size, the replicas,
    the threads or the step at which the epoch is entered.

    Args:
        split: Where the images come from.
        augmentation: What is done to each image.
        batch_size: Images in a step, over all replicas.
        order: Indices to show, (n,) int; None shows every image once, in the split's own order.
        seed: Of the random choices, at least 0.
        epoch: Of the random choices, at least 0.
        first_step: Steps to leave out at the beginning, without reading them.
        replicas: Replicas that share a batch, those of all processes.
        share: (i, n): only the rows of process i of n. The processes' rows in their order are the
            batch of a single process.

    Returns:
        A dataset of {`images`: float32 (rows, size, size, 3) RGB, 0..255 but for color noise;
        `labels`: int32 (rows,); `weights`: float32 (rows,), 1 or 0}.

    Raises:
        UsageError: If `batch_size` is less than 1.

    Example:
        >>> from cnnkit.data import Augmentation, batches, load_dataset
        >>> digits = load_dataset("digits").splits["test"]
        >>> augmentation = Augmentation(64, scale=(72, 72), crop="random")
        >>> batch = next(iter(batches(digits, augmentation=augmentation, batch_size=32)))
        >>> batch["images"].shape
        TensorShape([32, 64, 64, 3])
    """
    if batch_size < 1:
        raise UsageError("A batch holds images", expected="at least 1", received=batch_size)
    order = np.arange(len(split)) if order is None else np.asarray(order)
    steps = step_count(len(order), batch_size)
    rows = step_count(batch_size, replicas) * replicas
    index = np.zeros((steps, rows), np.int64)
    weights = np.zeros((steps, rows), np.float32)
    for step in range(steps):
        shown = order[step * batch_size : (step + 1) * batch_size]
        index[step, : len(shown)] = shown
        weights[step, : len(shown)] = 1

    def load(row):
        if split.encoded is None:
            image = augment_image(split.read(row["index"]), augmentation, row)
        else:
            image = augment_bytes(split.encoded(row["index"]), augmentation, row)
        return {"images": image, "labels": row["label"], "weights": row["weight"]}

    def load_batch(rows):
        images = tf.cast(tf.gather(split.pixels, rows["index"]), tf.float32)
        return {"images": images, "labels": rows["label"], "weights": rows["weight"]}

    process, processes = share
    rows //= processes
    mine = slice(process * rows, (process + 1) * rows)
    index, weights = index[first_step:, mine].ravel(), weights[first_step:, mine].ravel()
    rows_of = sample_augmentation(augmentation, len(split), seed=seed, epoch=epoch)
    table = {name: values[index] for name, values in rows_of.items()}
    table |= {"index": index, "label": split.labels[index], "weight": weights}
    dataset = tf.data.Dataset.from_tensor_slices(table)
    if split.pixels is not None and augmentation.keeps(*split.pixels.shape[1:3]):
        # Nothing is done to single images, which would cost more than to take them out together.
        dataset = parallel_map(dataset.batch(rows, drop_remainder=True), load_batch)
    else:
        dataset = parallel_map(dataset, load).batch(rows, drop_remainder=True)
    return dataset.prefetch(BATCHES_AHEAD)


NAMED_IN_ERROR = 3


@contextmanager
def report_undecodable(split: Split) -> Iterator[None]:
    """Around work on a split's batches: an image that cannot be decoded is an error with its name.

    TensorFlow's own error does not tell which file it was. Only when it occurs, all images are
    tried.

    Args:
        split: Where the images come from.

    Raises:
        DataError: If an image cannot be decoded.

    Example:
        >>> from cnnkit.data import Augmentation, batches, load_dataset
        >>> digits = load_dataset("digits").splits["test"]
        >>> with report_undecodable(digits):
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


# Room for CIFAR's 50,000 images and some; large photographs are read when they are shown.
MAX_CACHE_BYTES = 256 * 2**20


def cache_in_memory(split: Split, *, most_bytes: int = MAX_CACHE_BYTES) -> Split:
    """Returns a split with its pixels in memory, if they fit and all images have one size.

    Args:
        split: Any split.
        most_bytes: What the decoded images may take.

    Returns:
        The same images, labels and names; `split` itself where it stays as it is.

    Raises:
        DataError: If an image cannot be decoded; it is named.

    Example:
        >>> from cnnkit.data import load_dataset
        >>> digits = load_dataset("digits").splits["test"]
        >>> cache_in_memory(digits).pixels.shape
        TensorShape([359, 8, 8, 3])
    """
    if split.pixels is not None or not len(split):
        return split
    with report_undecodable(split):
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

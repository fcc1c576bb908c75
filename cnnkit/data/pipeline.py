"""From a split to batches: the order first, the pixels later.

The order of an epoch is a permutation drawn from (seed, epoch). Steps are cut from it before any
image is read, so the batches depend neither on threads nor on the number of replicas, and a resumed
run begins at its step without reading what came before.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from cnnkit.data.image import fit
from cnnkit.data.split import Split
from cnnkit.data.workers import BATCHES_AHEAD, parallel_map
from cnnkit.errors import UsageError

# The mean colour of more images than this changes by less than a hundredth of a level.
IMAGES_FOR_MEAN = 10_000
MEAN_BATCH = 64


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of `count` images in one epoch, a permutation, (count,) int64."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def step_count(images: int, batch_size: int) -> int:
    """Returns the number of steps that show `images` once, the last one perhaps smaller."""
    return -(-images // batch_size)


def batches(
    split: Split,
    *,
    image_size: int,
    batch_size: int,
    order: np.ndarray | None = None,
    first_step: int = 0,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Cuts a split into batches of one shape.

    Every batch has the same number of rows, divisible by the replicas: what is missing is filled up
    with rows of weight 0, which count for nothing in a weighted mean.

    Args:
        split: Where the images come from.
        image_size: Side of the images in pixels.
        batch_size: Images in a step, over all replicas.
        order: Indices to show, (n,) int; None shows every image once, in the split's own order.
        first_step: Steps to leave out at the beginning, without reading them.
        replicas: Replicas that share a batch.

    Returns:
        A dataset of {`images`: float32 (rows, size, size, 3) RGB 0..255, `labels`: int32 (rows,),
        `weights`: float32 (rows,), 1 or 0}.

    Raises:
        UsageError: If `batch_size` is less than 1.

    Example:
        >>> from cnnkit.data import batches, load_source
        >>> digits = load_source("digits").splits["test"]
        >>> batch = next(iter(batches(digits, image_size=64, batch_size=32)))
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

    def load(i, label, weight):
        return {"images": fit(split.read(i), image_size), "labels": label, "weights": weight}

    index, weights = index[first_step:].ravel(), weights[first_step:].ravel()
    dataset = tf.data.Dataset.from_tensor_slices((index, split.labels[index], weights))
    return parallel_map(dataset, load).batch(rows, drop_remainder=True).prefetch(BATCHES_AHEAD)


def mean_colour(split: Split, *, image_size: int) -> tuple[float, float, float]:
    """Returns the mean RGB of the training images, 0..255, over at most 10,000 of them."""
    stride = max(1, len(split) // IMAGES_FOR_MEAN)
    order = np.arange(0, len(split), stride)
    total = np.zeros(3)
    for batch in batches(split, image_size=image_size, batch_size=MEAN_BATCH, order=order):
        colours = tf.reduce_mean(tf.cast(batch["images"], tf.float64), axis=(1, 2))
        total += np.einsum("nc,n->c", colours.numpy(), batch["weights"].numpy())
    red, green, blue = total / len(order)
    return float(red), float(green), float(blue)

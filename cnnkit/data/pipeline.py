"""From a split to batches: the order first, the pixels later.

The order of an epoch is a permutation drawn from (seed, epoch). Steps are cut from it before any
image is read, so the batches depend neither on threads nor on the number of replicas, and a resumed
run begins at its step without reading what came before. What is random about an image is drawn
beforehand too, from (seed, epoch, index).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from cnnkit.data.augmentation import Augmentation
from cnnkit.data.crops import augment
from cnnkit.data.draws import draw
from cnnkit.data.encoded import augment_encoded
from cnnkit.data.split import Split
from cnnkit.data.workers import BATCHES_AHEAD, parallel_map
from cnnkit.errors import UsageError


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
        A dataset of {`images`: float32 (rows, size, size, 3) RGB, 0..255 but for colour noise;
        `labels`: int32 (rows,); `weights`: float32 (rows,), 1 or 0}.

    Raises:
        UsageError: If `batch_size` is less than 1.

    Example:
        >>> from cnnkit.data import Augmentation, batches, load_source
        >>> digits = load_source("digits").splits["test"]
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
            image = augment(split.read(row["index"]), augmentation, row)
        else:
            image = augment_encoded(split.encoded(row["index"]), augmentation, row)
        return {"images": image, "labels": row["label"], "weights": row["weight"]}

    def load_batch(rows):
        images = tf.cast(tf.gather(split.pixels, rows["index"]), tf.float32)
        return {"images": images, "labels": rows["label"], "weights": rows["weight"]}

    process, processes = share
    rows //= processes
    mine = slice(process * rows, (process + 1) * rows)
    index, weights = index[first_step:, mine].ravel(), weights[first_step:, mine].ravel()
    rows_of = draw(augmentation, len(split), seed=seed, epoch=epoch)
    table = {name: values[index] for name, values in rows_of.items()}
    table |= {"index": index, "label": split.labels[index], "weight": weights}
    dataset = tf.data.Dataset.from_tensor_slices(table)
    if split.pixels is not None and augmentation.keeps(*split.pixels.shape[1:3]):
        # Nothing is done to single images, which would cost more than to take them out together.
        dataset = parallel_map(dataset.batch(rows, drop_remainder=True), load_batch)
    else:
        dataset = parallel_map(dataset, load).batch(rows, drop_remainder=True)
    return dataset.prefetch(BATCHES_AHEAD)

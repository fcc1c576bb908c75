"""Batches of a split, in a seeded order and with seeded augmentation.

The order of an epoch is a permutation drawn from (seed, epoch). It is cut into steps before any
image is read, so the batches depend neither on threads nor on the number of replicas, and a resumed
run begins at its step without reading the images before it. The random parameters of an image are
drawn beforehand too, from (seed, epoch, index).

The number of threads that read images is fixed. TensorFlow's autotuning of it is switched off: its
thread sleeps for 10 ms, then twice as long each time, and occasionally (TensorFlow 2.21) an
iterator that has come to its end waits for that thread to wake up. An epoch of 5.1 seconds took
10.2, 20.5 or 41.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from cnnkit.data.augmentation import Augmentation, sample_augmentation
from cnnkit.data.boxes import crop_boxes
from cnnkit.data.crops import augment_image
from cnnkit.data.dataset import Split
from cnnkit.data.decode import traced_augment_bytes
from cnnkit.data.graph_checks import failed_check
from cnnkit.errors import DataError, UsageError

WORKERS = os.cpu_count() or 1
BATCHES_AHEAD = 2
# Enough for CIFAR's 50,000 images; large photographs are read from their files in every epoch.
MAX_CACHE_BYTES = 256 * 2**20
MAX_NAMES_IN_ERROR = 3
# After an error. ImageNet's 1.28 million images would take an hour.
SEARCH_SECONDS = 60.0


def fixed_parallelism() -> tf.data.Options:
    """Return the options that switch TensorFlow's autotuning off."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def parallel_map(dataset: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    """Map a dataset in its order on all cores, without autotuning.

    The function is traced as it is: AutoGraph does not rewrite it.
    """
    function = tf.autograph.experimental.do_not_convert(function)
    mapped = dataset.map(function, num_parallel_calls=WORKERS, deterministic=True)
    return mapped.with_options(fixed_parallelism())


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of `count` images in one epoch, a permutation, (count,) int64."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def step_count(images: int, batch_size: int) -> int:
    """Return the number of steps in an epoch of `images`; the last step may be smaller."""
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
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Cut a split into augmented batches of one shape.

    Every batch has the same number of rows, divisible by the number of replicas. Missing rows are
    padded with rows of weight 0, which do not count in a weighted mean.

    An image of an epoch is augmented the same way whatever the order, the batch size, the replicas,
    the threads or the first step.

    Args:
        split: The images.
        augmentation: Settings of the augmentation.
        batch_size: Images in a step, over all replicas.
        order: Indices of the images to read, (n,) int; None reads each image once, in order.
        seed: Seed of the augmentation, at least 0.
        epoch: Epoch of the augmentation, at least 0.
        first_step: Number of steps to skip at the beginning, without reading them.
        replicas: Number of replicas that share a batch, over all processes.
        shard: (i, n) keeps the rows of process i of n. The rows of all processes, concatenated in
            order, are the batch of a single process.

    Returns:
        A dataset of {`images`: float32 (rows, size, size, 3) RGB, 0..255 plus any color noise;
        `labels`: int32 (rows,); `weights`: float32 (rows,), 1 or 0}. A split with boxes also has
        `boxes`: float32 (rows, m, 4), left, top, right and bottom as fractions of the side of the
        crop, beyond 0..1 for what lies outside of it.

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
        raise UsageError(
            "`batch_size` must be positive", expected="at least 1", received=batch_size
        )
    order = np.arange(len(split)) if order is None else np.asarray(order)
    index, weights = _padded_steps(order, batch_size, replicas)
    process, processes = shard
    rows = index.shape[1] // processes
    own_rows = slice(process * rows, (process + 1) * rows)
    index, weights = index[first_step:, own_rows].ravel(), weights[first_step:, own_rows].ravel()
    parameters = sample_augmentation(augmentation, len(split), seed=seed, epoch=epoch)
    table = {name: values[index] for name, values in parameters.items()}
    table |= {"index": index, "label": split.labels[index], "weight": weights}
    if split.boxes is not None:
        table["boxes"] = split.boxes[index]
    dataset = tf.data.Dataset.from_tensor_slices(table)

    def load(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if split.load_bytes is None:
            whole = split.load_image(row["index"])
            image, sides = augment_image(whole, augmentation, row), tf.shape(whole)[:2]
        else:
            data = split.load_bytes(row["index"])
            image, sides = traced_augment_bytes(data, augmentation, row, split.decoding)
        loaded = {"images": image, "labels": row["label"], "weights": row["weight"]}
        if split.boxes is not None:
            loaded["boxes"] = crop_boxes(row["boxes"], sides, augmentation, row)
        return loaded

    def load_batch(rows: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        images = tf.cast(tf.gather(split.pixels, rows["index"]), tf.float32)
        return {"images": images, "labels": rows["label"], "weights": rows["weight"]}

    if (
        split.boxes is None
        and split.pixels is not None
        and augmentation.is_identity(*split.pixels.shape[1:3])
    ):
        # Unchanged images are gathered a batch at a time, which is faster than one by one.
        dataset = parallel_map(dataset.batch(rows, drop_remainder=True), load_batch)
    else:
        dataset = parallel_map(dataset, load).batch(rows, drop_remainder=True)
    return dataset.prefetch(BATCHES_AHEAD)


def gathered_batches(
    rows: tf.Tensor,
    labels: np.ndarray,
    *,
    batch_size: int,
    order: np.ndarray | None = None,
    first_step: int = 0,
    replicas: int = 1,
    boxes: np.ndarray | None = None,
) -> Iterator[dict[str, tf.Tensor]]:
    """Cut values in memory into batches of one shape, as `batches` does with images.

    Args:
        rows: (n, ...) values, one row for each image.
        labels: (n,) int32.
        batch_size: As in `batches`, and so the other arguments.
        order: Indices of the rows, (m,) int; None takes each row once, in order.
        first_step: Number of steps to skip at the beginning.
        replicas: Number of replicas that share a batch.
        boxes: (n, m, 4) float32 of the `boxes` that `batches` returned, or None.

    Yields:
        {`images`: the rows; `labels`: int32; `weights`: float32, 1 or 0}, and `boxes` if given.
    """
    order = np.arange(len(labels)) if order is None else np.asarray(order)
    index, weights = _padded_steps(order, batch_size, replicas)
    for chosen, weight in zip(index[first_step:], weights[first_step:], strict=True):
        batch = {
            "images": tf.gather(rows, chosen),
            "labels": tf.constant(labels[chosen], tf.int32),
            "weights": tf.constant(weight),
        }
        yield batch if boxes is None else {**batch, "boxes": tf.constant(boxes[chosen])}


def _padded_steps(
    order: np.ndarray, batch_size: int, replicas: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return index and weight of the rows of each step, (steps, rows) int64 and float32."""
    steps = step_count(len(order), batch_size)
    rows = step_count(batch_size, replicas) * replicas
    index = np.zeros((steps, rows), np.int64)
    weights = np.zeros((steps, rows), np.float32)
    for step in range(steps):
        images = order[step * batch_size : (step + 1) * batch_size]
        index[step, : len(images)] = images
        weights[step, : len(images)] = 1
    return index, weights


def cache_in_memory(split: Split, *, max_bytes: int = MAX_CACHE_BYTES) -> Split:
    """Decode a split into memory, if it fits and all images have one size.

    Training then reads and decodes the files once per run, not once per epoch.

    Args:
        split: Any split.
        max_bytes: Largest size of the decoded images in bytes.

    Returns:
        A split with the same images, labels and names, and with `pixels`; or `split` itself, if
        its images are in memory already, do not fit, or differ in size.

    Raises:
        DataError: If an image cannot be decoded; the message names it.

    Example:
        >>> from cnnkit.data import load_dataset
        >>> digits = load_dataset("digits").splits["test"]
        >>> cache_in_memory(digits).pixels.shape
        TensorShape([359, 8, 8, 3])
    """
    if split.pixels is not None or not len(split):
        return split
    with report_undecodable(split):
        shape = tuple(split.load_image(tf.constant(0, tf.int64)).shape)
        if len(split) * math.prod(shape) > max_bytes:
            return split
        # Photos of many sizes are told by two of them, before the rest is read.
        if tuple(split.load_image(tf.constant(len(split) - 1, tf.int64)).shape) != shape:
            return split
        pixels = np.empty((len(split), *shape), np.uint8)
        images = parallel_map(tf.data.Dataset.range(len(split)), split.load_image)
        for index, image in enumerate(images.as_numpy_iterator()):
            if image.shape != shape:
                return split
            pixels[index] = image
    return dataclasses.replace(
        Split.from_pixels(split.labels, split.names, pixels), boxes=split.boxes
    )


@contextmanager
def report_undecodable(split: Split) -> Iterator[None]:
    """Name the images that cannot be decoded, around work on batches of a split.

    TensorFlow's own error does not contain the file name. Only after such an error are the images
    of the split tried again, for at most `SEARCH_SECONDS`.

    Args:
        split: The images.

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
        undecodable, tried = _find_undecodable(split)
        is_partial = tried < len(split)
        reason = failed_check(error)
        if not undecodable and is_partial:
            raise DataError(
                f"The {len(split):,} images could not all be read",
                received=reason or str(error.message).partition("\n")[0],
                hint="`cnnkit data check` names those that cannot be decoded",
            ) from error
        if not undecodable:
            raise
        which = f"of the first {tried:,} images" if is_partial else "of the images"
        raise DataError(
            f"{len(undecodable)} {which} cannot be decoded" + (f": {reason}" if reason else ""),
            received=", ".join(undecodable[:MAX_NAMES_IN_ERROR]),
            hint="Remove or repair them: `cnnkit data check` names them all",
        ) from error


def _find_undecodable(split: Split) -> tuple[list[str], int]:
    """Return the names of images that cannot be decoded, and how many images were tried."""

    def index_if_decodable(index: tf.Tensor) -> tf.Tensor:
        # The size makes the decoding part of the graph; only the index is kept.
        return index + 0 * tf.size(split.load_image(index), out_type=tf.int64)

    dataset = parallel_map(tf.data.Dataset.range(len(split)), index_if_decodable).ignore_errors()
    decodable, tried, start = [], len(split), time.monotonic()
    for index in dataset.as_numpy_iterator():
        decodable.append(index)
        if time.monotonic() - start > SEARCH_SECONDS:
            tried = int(index) + 1
            break
    return [split.names[i] for i in np.setdiff1d(np.arange(tried), decodable)], tried

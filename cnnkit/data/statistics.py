"""Statistics of the training images: mean color, mean image, principal components of the colors.

Sums are accumulated in double precision, a batch at a time, so that only one batch is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from cnnkit.data.augmentation import Augmentation, ColorComponents
from cnnkit.data.dataset import Split
from cnnkit.data.pipeline import batches, report_undecodable
from cnnkit.errors import DataError

# With more images than this, color statistics change by less than a hundredth of a level.
IMAGES_FOR_COLORS = 10_000
BATCH_SIZE = 64


def mean_color(split: Split, *, image_size: int) -> tuple[float, float, float]:
    """Compute the mean RGB, 0..255, of the center crops of at most 10,000 images.

    Args:
        split: The training images. More than 10,000 are sampled evenly.
        image_size: Side of the center crops in pixels.

    Example:
        >>> from cnnkit.data import load_dataset, mean_color
        >>> red, green, blue = mean_color(load_dataset("digits").splits["train"], image_size=8)
        >>> red == green == blue  # gray images
        True
    """
    total, count = np.zeros(3), 0
    for images in _center_crops(split, Augmentation(image_size), IMAGES_FOR_COLORS):
        total += tf.reduce_sum(tf.reduce_mean(images, axis=(1, 2)), axis=0).numpy()
        count += len(images)
    red, green, blue = total / count
    return float(red), float(green), float(blue)


def mean_image(split: Split, size: int, *, scale: int | None = None) -> np.ndarray:
    """Compute the mean of all images, pixel by pixel (Krizhevsky et al. 2012, section 2).

    Args:
        split: The training images.
        size: Side of the mean image in pixels.
        scale: Shorter side to which the images are rescaled before their center is cropped; None
            is `size`.

    Returns:
        (size, size, 3) float32 RGB, 0..255.

    Example:
        >>> from cnnkit.data import load_dataset, mean_image
        >>> mean_image(load_dataset("digits").splits["train"], 8).shape
        (8, 8, 3)
    """
    total, count = np.zeros((size, size, 3)), 0
    for images in _center_crops(split, Augmentation(size, (scale, scale) if scale else None)):
        total += tf.reduce_sum(images, axis=0).numpy()
        count += len(images)
    return (total / count).astype(np.float32)


def color_components(
    split: Split, *, image_size: int, max_images: int | None = IMAGES_FOR_COLORS
) -> ColorComponents:
    """Compute the principal components of the colors of the training images.

    The covariance is that of all pixels of the center crops, exactly.

    Args:
        split: The training images.
        image_size: Side of the center crops in pixels.
        max_images: Number of images to use at most, sampled evenly from the split; None uses all.

    Raises:
        DataError: If every pixel has the same color.

    Example:
        >>> from cnnkit.data import color_components, load_dataset
        >>> gray = color_components(load_dataset("digits").splits["train"], image_size=8)
        >>> [round(row[0], 3) for row in gray.eigenvectors]  # gray images vary along gray alone
        [0.577, 0.577, 0.577]
    """
    total, products, count = np.zeros(3), np.zeros((3, 3)), 0
    for images in _center_crops(split, Augmentation(image_size), max_images):
        pixels = tf.reshape(images, (-1, 3))
        total += tf.reduce_sum(pixels, axis=0).numpy()
        products += tf.matmul(pixels, pixels, transpose_a=True).numpy()
        count += len(pixels)
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    # Rounding can leave a zero variance slightly negative.
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    if values[0] < np.finfo(np.float32).eps:
        raise DataError(
            "The training images in `split` have only one color, so it has no components",
            expected="pixels that differ",
            received=f"{count} pixels of RGB {np.round(mean, 1).tolist()}",
        )
    largest = vectors[np.argmax(np.abs(vectors), axis=0), range(3)]
    vectors = vectors * np.sign(largest)
    return ColorComponents.from_arrays(values, vectors)


def _center_crops(
    split: Split, augmentation: Augmentation, max_images: int | None = None
) -> Iterator[tf.Tensor]:
    """Yield batches of center crops, (n, size, size, 3) float64, of at most `max_images`."""
    count = len(split) if max_images is None else min(max_images, len(split))
    order = np.arange(count) * len(split) // count
    with report_undecodable(split):
        for batch in batches(split, augmentation=augmentation, batch_size=BATCH_SIZE, order=order):
            yield tf.cast(batch["images"][: int(batch["weights"].numpy().sum())], tf.float64)

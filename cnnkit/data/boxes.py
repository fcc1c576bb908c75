"""Bounding boxes: how a crop moves them, their overlap, and their center and size."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from cnnkit.data.augmentation import Augmentation
from cnnkit.data.crops import crop_window


def crop_boxes(
    boxes: tf.Tensor,
    sides: tf.Tensor,
    augmentation: Augmentation,
    parameters: Mapping[str, tf.Tensor],
) -> tf.Tensor:
    """Move the boxes of an image as `cnnkit.data.crops.augment_image` moves its pixels.

    Args:
        boxes: (m, 4) float32: left, top, right and bottom in pixels.
        sides: (2,) int32, height and width of the image in pixels.
        augmentation: The settings.
        parameters: One row of the result of `cnnkit.data.augmentation.sample_augmentation`.

    Returns:
        (m, 4) float32, as fractions of the side of the crop. What lies outside of the crop is
        below 0 or above 1: the boxes are not cut off.

    Example:
        >>> from cnnkit.data import Augmentation
        >>> box = tf.constant([[20.0, 0.0, 60.0, 20.0]])
        >>> crop_boxes(box, tf.constant([40, 80]), Augmentation(40), {}).numpy()
        array([[0. , 0. , 1. , 0.5]], dtype=float32)
    """
    scaled, offset = crop_window(sides, augmentation, parameters)
    factor = tf.reverse(tf.cast(scaled / sides, tf.float32), [0])
    start = tf.reverse(tf.cast(offset, tf.float32), [0])
    corners = (tf.reshape(boxes, (-1, 2, 2)) * factor - start) / augmentation.image_size
    moved = tf.reshape(corners, (-1, 4))
    if "mirror" not in parameters:
        return moved
    left, top, right, bottom = tf.unstack(moved, axis=-1)
    mirrored = tf.stack([1 - right, top, 1 - left, bottom], axis=-1)
    return tf.where(parameters["mirror"], mirrored, moved)


def image_boxes(boxes: tf.Tensor, sides: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Move boxes from the center crop back to the image: the inverse of `crop_boxes`.

    Args:
        boxes: (..., 4) float32, as fractions of the side of the crop.
        sides: (2,) int32, height and width of the image in pixels.
        augmentation: The settings of a crop without random parameters.

    Returns:
        (..., 4) float32: left, top, right and bottom in pixels of the image.
    """
    scaled, offset = crop_window(sides, augmentation, {})
    factor = tf.reverse(tf.cast(scaled / sides, tf.float32), [0])
    start = tf.reverse(tf.cast(offset, tf.float32), [0])
    corners = tf.reshape(boxes, (*boxes.shape[:-1], 2, 2)) * augmentation.image_size
    return tf.reshape((corners + start) / factor, boxes.shape)


def center_and_size(boxes: tf.Tensor) -> tf.Tensor:
    """Return the centers and sizes of boxes (Simonyan & Zisserman 2014, appendix A).

    Args:
        boxes: (..., 4): left, top, right, bottom.

    Returns:
        (..., 4): x and y of the center, width, height.

    Example:
        >>> center_and_size(tf.constant([[0.0, 0.0, 4.0, 2.0]])).numpy()
        array([[2., 1., 4., 2.]], dtype=float32)
    """
    start, end = boxes[..., :2], boxes[..., 2:]
    return tf.concat([(start + end) / 2, end - start], axis=-1)


def corners(boxes: tf.Tensor) -> tf.Tensor:
    """Return boxes by their corners: the inverse of `center_and_size`."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return tf.concat([center - half, center + half], axis=-1)


def overlap(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Return the intersection over union of pairs of boxes.

    Args:
        boxes: (..., 4): left, top, right, bottom.
        others: (..., 4), of a shape that fits by broadcasting.

    Returns:
        (...) in 0..1; 0 where a box has no area or is not a number.

    Example:
        >>> overlap(tf.constant([0.0, 0.0, 2.0, 1.0]), tf.constant([1.0, 0.0, 3.0, 1.0])).numpy()
        np.float32(0.33333334)
    """

    def area(one: tf.Tensor) -> tf.Tensor:
        return tf.reduce_prod(tf.maximum(one[..., 2:] - one[..., :2], 0), axis=-1)

    start = tf.maximum(boxes[..., :2], others[..., :2])
    end = tf.minimum(boxes[..., 2:], others[..., 2:])
    common = tf.reduce_prod(tf.maximum(end - start, 0), axis=-1)
    ratio = tf.math.divide_no_nan(common, area(boxes) + area(others) - common)
    return tf.where(tf.math.is_finite(ratio), ratio, 0)

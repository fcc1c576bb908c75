"""From an image to the square that the network takes, as TensorFlow graph functions.

Only the pixels that the square needs are rescaled, and of a JPEG file only those are decoded.
Every function below works on the pair (height, width) at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from cnnkit.data.augmentation import Augmentation

# A window of the image: (2,) int32 top and left, (2,) int32 height and width -> uint8 pixels.
ReadWindow = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# Decoders smooth colors over neighbors, which must be there to give the same pixels.
NEIGHBORS = 2


def augment_image(
    image: tf.Tensor, augmentation: Augmentation, choices: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Rescales, cuts out, mirrors and tints one image.

    Args:
        image: (h, w, 3) uint8 or any number type, RGB 0..255.
        augmentation: What to do.
        choices: One row of what `cnnkit.data.augmentation.sample_augmentation` gives.

    Returns:
        (size, size, 3) float32 RGB, 0..255 but for color noise.

    Example:
        >>> from cnnkit.data import Augmentation
        >>> augment_image(tf.zeros((40, 60, 3)), Augmentation(32), {}).shape
        TensorShape([32, 32, 3])
    """
    scaled, offset = crop_window(tf.shape(image)[:2], augmentation, choices)
    read, size = slice_of(image), augmentation.image_size
    crop = crop_image(
        read, tf.shape(image)[:2], scaled, offset, size, fast=augmentation.fast_decode
    )
    return flip_and_color(tf.ensure_shape(crop, (size, size, 3)), choices)


def crop_window(
    sides: tf.Tensor, augmentation: Augmentation, choices: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sides of the rescaled image and where in it the crop begins, (2,) int32 each."""
    shorter = choices.get("scale", tf.constant(augmentation.scales[0]))
    ratio = tf.cast(shorter, tf.float64) / tf.cast(tf.reduce_min(sides), tf.float64)
    rounded = tf.cast(tf.round(tf.cast(sides, tf.float64) * ratio), tf.int32)
    scaled = tf.maximum(rounded, shorter)
    room = tf.stack([shorter, shorter]) if augmentation.square else scaled
    play = room - augmentation.image_size
    if augmentation.crop == "random":
        offset = tf.cast(choices["position"] * tf.cast(play + 1, tf.float64), tf.int32)
    elif augmentation.crop == "ten":
        offset = tf.cast(choices["position"] * tf.cast(play, tf.float64), tf.int32)
    else:
        offset = play // 2
    return scaled, offset + (scaled - room) // 2


def slice_of(image: tf.Tensor) -> ReadWindow:
    """Returns the reader of windows of an image that is in memory."""
    return lambda begin, size: image[begin[0] : begin[0] + size[0], begin[1] : begin[1] + size[1]]


def crop_image(
    read: ReadWindow,
    sides: tf.Tensor,
    scaled: tf.Tensor,
    offset: tf.Tensor,
    size: int | tf.Tensor,
    *,
    fast: bool = False,
) -> tf.Tensor:
    """Returns a crop of the rescaled image, (h, w, 3) float32, from the pixels that it needs.

    Args:
        read: Gives windows of the image.
        sides: (2,) int32, of the image.
        scaled: (2,) int32, of the image after rescaling.
        offset: (2,) int32, where the crop begins after rescaling.
        size: Side of the crop, or (2,) int32, its sides.
        fast: Whether to rescale without antialiasing.
    """
    size = tf.broadcast_to(size, (2,))
    scale = tf.cast(scaled, tf.float64) / tf.cast(sides, tf.float64)
    start = tf.cast(offset, tf.float64)
    span = tf.cast(size, tf.float64)
    if fast:
        extent = tf.clip_by_value(tf.cast(tf.round(span / scale), tf.int32), 1, sides)
        begin = tf.minimum(tf.cast(tf.round(start / scale), tf.int32), sides - extent)
    else:
        # The filter reaches one pixel to either side, and further the more the image shrinks.
        reach = tf.maximum(1 / scale, 1) + NEIGHBORS
        begin = tf.maximum(tf.cast(tf.floor((start + 0.5) / scale - reach), tf.int32), 0)
        last = (start + span - 0.5) / scale + reach
        extent = tf.minimum(tf.cast(tf.math.ceil(last), tf.int32), sides) - begin
    window = read(begin, extent)

    def as_it_is():
        top, left = tf.unstack(offset - begin)
        return tf.cast(window[top : top + size[0], left : left + size[1]], tf.float32)

    def rescaled():
        if fast:
            return tf.raw_ops.ResizeBilinear(
                images=window[None], size=size, half_pixel_centers=True
            )[0]
        return tf.raw_ops.ScaleAndTranslate(
            images=window[None],
            size=size,
            scale=tf.cast(scale, tf.float32),
            translation=tf.cast(tf.cast(begin, tf.float64) * scale - start, tf.float32),
            kernel_type="triangle",
            antialias=True,
        )[0]

    # An image of the right size is common, and rescaling a small one takes longer than decoding it.
    crop = tf.cond(tf.reduce_all(scaled == sides), as_it_is, rescaled)
    return tf.ensure_shape(crop, (None, None, 3))


def flip_and_color(image: tf.Tensor, choices: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Mirrors and tints a crop, (size, size, 3) float32."""
    if "mirror" in choices:
        # An index of step -1 does the same and takes ten times as long.
        image = tf.cond(choices["mirror"], lambda: tf.reverse(image, [1]), lambda: image)
    if "shift" in choices:
        # Whole rows at once: three values at a time are slow to add.
        height, width, _ = image.shape
        row = tf.tile(choices["shift"], [width])
        image = tf.reshape(tf.reshape(image, (height, width * 3)) + row, image.shape)
    return image

"""Rescaling, cropping, mirroring and tinting of one image, as TensorFlow graph functions.

Only the pixels that the crop needs are rescaled, and only those of a JPEG file are decoded.
Every function below handles the pair (height, width) in one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from cnnkit.data.augmentation import Augmentation
from cnnkit.errors import UsageError

# Reads a window of an image: (2,) int32 top and left, (2,) int32 height and width -> uint8 pixels.
ReadWindow = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# Weights of red, green and blue in the luminance of ITU-R BT.601, in units of 1 / 65536 as Pillow
# rounds them. They sum to 1, so that a gray pixel keeps its value.
LUMINANCE = (19595, 38470, 7471)
# Decoders smooth colors over neighboring pixels, so a window needs these around it to decode to
# the same pixels as the whole image.
NEIGHBORS = 2


def augment_image(
    image: tf.Tensor, augmentation: Augmentation, parameters: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Rescale, crop, mirror and tint one image.

    Args:
        image: (h, w, 3) uint8 or any number type, RGB 0..255.
        augmentation: The settings.
        parameters: One row of the result of `cnnkit.data.augmentation.sample_augmentation`.

    Returns:
        (size, size, 3) float32 RGB, 0..255 plus any color noise.

    Example:
        >>> from cnnkit.data import Augmentation
        >>> augment_image(tf.zeros((40, 60, 3)), Augmentation(32), {}).shape
        TensorShape([32, 32, 3])
    """
    sides = tf.shape(image)[:2]
    scaled, offset = crop_window(sides, augmentation, parameters)
    read, size = array_window_reader(image), augmentation.image_size
    crop = crop_image(read, sides, scaled, offset, size, fast=augmentation.fast_decode)
    return flip_and_color(tf.ensure_shape(crop, (size, size, 3)), parameters)


def crop_window(
    sides: tf.Tensor, augmentation: Augmentation, parameters: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the size of the rescaled image and the offset of the crop in it.

    Args:
        sides: (2,) int32, height and width of the image in pixels.
        augmentation: The settings.
        parameters: One row of the result of `cnnkit.data.augmentation.sample_augmentation`.

    Returns:
        Height and width of the rescaled image, (2,) int32, and top and left of the crop in it,
        (2,) int32. With `crop="ten"` and (n, 2) positions the offsets are (n, 2).
    """
    shorter = parameters.get("scale", tf.constant(augmentation.scales[0]))
    ratio = tf.cast(shorter, tf.float64) / tf.cast(tf.reduce_min(sides), tf.float64)
    rounded = tf.cast(tf.round(tf.cast(sides, tf.float64) * ratio), tf.int32)
    scaled = tf.maximum(rounded, shorter)
    area = tf.stack([shorter, shorter]) if augmentation.central_square else scaled
    free = area - augmentation.image_size
    if augmentation.crop == "random":
        offset = tf.cast(parameters["position"] * tf.cast(free + 1, tf.float64), tf.int32)
    elif augmentation.crop == "ten":
        offset = tf.cast(parameters["position"] * tf.cast(free, tf.float64), tf.int32)
    else:
        offset = free // 2
    return scaled, offset + (scaled - area) // 2


def array_window_reader(image: tf.Tensor) -> ReadWindow:
    """Return a function that reads windows of an image in memory, (h, w, 3)."""
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
    """Compute a crop of the rescaled image from the pixels that it needs.

    Args:
        read: Function that reads windows of the image.
        sides: (2,) int32, height and width of the image.
        scaled: (2,) int32, height and width of the rescaled image.
        offset: (2,) int32, top and left of the crop in the rescaled image.
        size: Side of the crop, or (2,) int32, its height and width.
        fast: Whether to rescale without antialiasing.

    Returns:
        (h, w, 3) float32.
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

    def unscaled() -> tf.Tensor:
        top, left = tf.unstack(offset - begin)
        return tf.cast(window[top : top + size[0], left : left + size[1]], tf.float32)

    def rescaled() -> tf.Tensor:
        # ResizeBilinear is the operation behind `tf.image.resize`. ScaleAndTranslate with an offset
        # has no function in `tf.image`.
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

    # Images of the right size are common, and rescaling a small one takes longer than decoding it.
    crop = tf.cond(tf.reduce_all(scaled == sides), unscaled, rescaled)
    return tf.ensure_shape(crop, (None, None, 3))


def fit_images(images: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    """Crop the center of RGB images to the shape of a network's input, gray if it has one channel.

    Args:
        images: (..., h, w, 3) float32.
        shape: Height, width and channels of the input; None leaves a side as it is.

    Raises:
        UsageError: If the network has neither 1 nor 3 channels.

    Example:
        >>> fit_images(tf.ones((2, 32, 32, 3)), (16, 32, 1)).shape
        TensorShape([2, 16, 32, 1])
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise UsageError(
            "`model` must take RGB or gray images",
            expected="an input of 3 channels or 1",
            received=f"{channels} channels",
        )
    for axis, side in ((-3, height), (-2, width)):
        if side is not None and images.shape[axis] != side:
            free = tf.shape(images)[axis] - side
            images = tf.gather(images, tf.range(side) + free // 2, axis=axis)
    if channels == 1:
        weights = tf.constant(LUMINANCE, tf.float32) / 65536
        images = tf.reduce_sum(tf.cast(images, tf.float32) * weights, axis=-1, keepdims=True)
    return images


def flip_and_color(image: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Mirror and tint a crop, (size, size, 3) float32."""
    if "mirror" in parameters:
        # Slicing with a step of -1 gives the same result and takes ten times as long.
        image = tf.cond(parameters["mirror"], lambda: tf.reverse(image, [1]), lambda: image)
    if "shift" in parameters:
        # Whole rows at once: adding three values at a time is slow.
        height, width, _ = image.shape
        row = tf.tile(parameters["shift"], [width])
        image = tf.reshape(tf.reshape(image, (height, width * 3)) + row, image.shape)
    return image

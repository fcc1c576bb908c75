"""From the bytes of an image file to the square that the network takes, decoding what it needs.

Without `fast_decode` the pixels are those of decoding the whole file first.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from cnnkit.data.augmentation import Augmentation
from cnnkit.data.crops import ReadWindow, cut, finish, place, slice_of
from cnnkit.data.image import decode

# A JPEG decoder gives an image of these fractions of its sides for less work than the whole.
REDUCTIONS = (1, 2, 4, 8)


def augment_encoded(
    data: tf.Tensor, augmentation: Augmentation, choices: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Decodes, rescales, cuts out, mirrors and tints one image.

    Args:
        data: () string, a file that `cnnkit.data.decode` reads.
        augmentation: What to do.
        choices: One row of what `cnnkit.data.draws.draw` gives.

    Returns:
        (size, size, 3) float32 RGB, 0..255 but for colour noise.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are no image.

    Example:
        >>> from cnnkit.data import Augmentation
        >>> file = tf.io.encode_jpeg(tf.zeros((40, 60, 3), tf.uint8))
        >>> augment_encoded(file, Augmentation(32), {}).shape
        TensorShape([32, 32, 3])
    """

    def from_pixels():
        image = decode(data)
        sides = tf.shape(image)[:2]
        return cut(slice_of(image), sides, *place(sides, augmentation, choices), augmentation)

    def from_jpeg():
        sides = tf.io.extract_jpeg_shape(data)[:2]
        scaled, offset = place(sides, augmentation, choices)

        def at(reduction):
            # The decoder rounds a side that does not divide up.
            reduced = -(-sides // reduction)
            read = _jpeg_reader(data, reduction, augmentation.fast_decode)
            return cut(read, reduced, scaled, offset, augmentation)

        if not augmentation.fast_decode:
            return at(1)
        fits = tf.constant(REDUCTIONS[1:]) * tf.reduce_min(scaled) <= tf.reduce_min(sides)
        which = tf.reduce_sum(tf.cast(fits, tf.int32))
        return tf.switch_case(which, [lambda r=r: at(r) for r in REDUCTIONS])

    image = tf.cond(tf.io.is_jpeg(data), from_jpeg, from_pixels)
    return finish(tf.ensure_shape(image, (augmentation.image_size,) * 2 + (3,)), choices)


def _jpeg_reader(data: tf.Tensor, reduction: int, fast: bool) -> ReadWindow:
    quicker = {"dct_method": "INTEGER_FAST", "fancy_upscaling": False} if fast else {}

    def read(begin, size):
        window = tf.concat([begin, size], axis=0)
        return tf.io.decode_and_crop_jpeg(data, window, channels=3, ratio=reduction, **quicker)

    return read

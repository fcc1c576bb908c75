"""From the bytes of an image file to the square that the network takes, decoding what it needs.

Without `fast_decode` the pixels are those of decoding the whole file first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

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
    is_jpeg, image, sides = _opened(data)
    scaled, offset = place(sides, augmentation, choices)
    which = tf.constant(0)
    if augmentation.fast_decode:
        fits = tf.constant(REDUCTIONS[1:]) * tf.reduce_min(scaled) <= tf.reduce_min(sides)
        which = tf.reduce_sum(tf.cast(is_jpeg & fits, tf.int32))
        # The decoder rounds a side that does not divide up.
        sides = -(-sides // tf.gather(REDUCTIONS, which))
    size, fast = augmentation.image_size, augmentation.fast_decode
    read = _reader(is_jpeg, image, lambda window: _decode_window(data, window, which, fast))
    crop = cut(read, sides, scaled, offset, size, fast=fast)
    return finish(tf.ensure_shape(crop, (size, size, 3)), choices)


def windows_of(data: tf.Tensor) -> tuple[tf.Tensor, ReadWindow]:
    """Returns the sides of an image file, (2,) int32, and the reader that decodes its windows.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are no image.
    """
    is_jpeg, image, sides = _opened(data)
    decode_window = functools.partial(tf.io.decode_and_crop_jpeg, data, channels=3)
    return sides, _reader(is_jpeg, image, decode_window)


def _opened(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns whether a file is a JPEG, else its pixels, and its sides."""
    is_jpeg = tf.io.is_jpeg(data)
    # What is no JPEG has to be decoded to be measured. The branches are kept small, because the
    # one that is not taken costs time too.
    image = tf.cond(is_jpeg, lambda: tf.zeros((0, 0, 3), tf.uint8), lambda: decode(data))
    sides = tf.cond(
        is_jpeg, lambda: tf.io.extract_jpeg_shape(data)[:2], lambda: tf.shape(image)[:2]
    )
    return is_jpeg, image, sides


def _reader(
    is_jpeg: tf.Tensor, image: tf.Tensor, decode_window: Callable[[tf.Tensor], tf.Tensor]
) -> ReadWindow:
    def read(begin, size):
        return tf.cond(
            is_jpeg,
            lambda: decode_window(tf.concat([begin, size], axis=0)),
            lambda: slice_of(image)(begin, size),
        )

    return read


def _decode_window(data: tf.Tensor, window: tf.Tensor, which: tf.Tensor, fast: bool) -> tf.Tensor:
    """Decodes a window, (4,) int32, of a JPEG, or, to be fast, of its reduction."""
    if not fast:
        return tf.io.decode_and_crop_jpeg(data, window, channels=3)

    def of(reduction):
        return lambda: tf.io.decode_and_crop_jpeg(
            data,
            window,
            channels=3,
            ratio=reduction,
            dct_method="INTEGER_FAST",
            fancy_upscaling=False,
        )

    return tf.switch_case(which, [of(reduction) for reduction in REDUCTIONS])

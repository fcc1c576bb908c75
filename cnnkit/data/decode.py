"""From the bytes of a file to the pixels that a network takes, as TensorFlow graph functions.

Training, evaluation and the exported model call the same two functions, so that they see the same
pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import tensorflow as tf

from cnnkit.data.augmentation import Augmentation
from cnnkit.data.crops import (
    ReadWindow,
    augment_image,
    crop_image,
    crop_window,
    flip_and_color,
    slice_of,
)

FORMATS = "JPEG, PNG, BMP, GIF or WebP"


def decode_image(data: tf.Tensor) -> tf.Tensor:
    """Decodes one encoded image to RGB.

    Gray becomes three equal channels, transparency is dropped, an animation is its first frame.

    Args:
        data: () string, a JPEG, PNG, BMP, GIF or WebP file.

    Returns:
        (h, w, 3) uint8.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are no such image.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.data import decode_image
        >>> png = tf.io.encode_png(tf.zeros((4, 6, 1), tf.uint8))
        >>> decode_image(png).shape
        TensorShape([4, 6, 3])
    """
    # The BMP decoder alone refuses to convert, so it hands out the file's own channels.
    is_bmp = tf.strings.regex_full_match(tf.strings.substr(data, 0, 2), "BM")
    image = tf.cond(
        is_bmp,
        lambda: _to_rgb(tf.io.decode_bmp(data, channels=0)),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def resize_shorter_side(image: tf.Tensor, size: int) -> tf.Tensor:
    """Rescales the shorter side to `size` and cuts out the center (Krizhevsky 2012, section 2).

    Bilinear with antialiasing: the papers do not name their filter.

    Args:
        image: (h, w, 3), any number type, 0..255.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) float32 in 0..255.
    """
    return augment_image(image, Augmentation(size), {})


def _to_rgb(image: tf.Tensor) -> tf.Tensor:
    channels = tf.shape(image)[-1]
    return tf.cond(channels == 1, lambda: tf.repeat(image, 3, axis=-1), lambda: image[..., :3])


# A JPEG decoder gives an image of these fractions of its sides for less work than the whole.
REDUCTIONS = (1, 2, 4, 8)


def augment_bytes(
    data: tf.Tensor, augmentation: Augmentation, choices: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Decodes, rescales, cuts out, mirrors and tints one image.

    Args:
        data: () string, a file that `cnnkit.data.decode_image` reads.
        augmentation: What to do.
        choices: One row of what `cnnkit.data.augmentation.sample_augmentation` gives.

    Returns:
        (size, size, 3) float32 RGB, 0..255 but for color noise.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are no image.

    Example:
        >>> from cnnkit.data import Augmentation
        >>> file = tf.io.encode_jpeg(tf.zeros((40, 60, 3), tf.uint8))
        >>> augment_bytes(file, Augmentation(32), {}).shape
        TensorShape([32, 32, 3])
    """
    is_jpeg, image, sides = _opened(data)
    scaled, offset = crop_window(sides, augmentation, choices)
    which = tf.constant(0)
    if augmentation.fast_decode:
        fits = tf.constant(REDUCTIONS[1:]) * tf.reduce_min(scaled) <= tf.reduce_min(sides)
        which = tf.reduce_sum(tf.cast(is_jpeg & fits, tf.int32))
        # The decoder rounds a side that does not divide up.
        sides = -(-sides // tf.gather(REDUCTIONS, which))
    size, fast = augmentation.image_size, augmentation.fast_decode
    read = _reader(is_jpeg, image, lambda window: _decode_window(data, window, which, fast))
    crop = crop_image(read, sides, scaled, offset, size, fast=fast)
    return flip_and_color(tf.ensure_shape(crop, (size, size, 3)), choices)


def window_reader(data: tf.Tensor) -> tuple[tf.Tensor, ReadWindow]:
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
    image = tf.cond(is_jpeg, lambda: tf.zeros((0, 0, 3), tf.uint8), lambda: decode_image(data))
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

"""Decoding of image files, as TensorFlow graph functions.

Training, evaluation and the exported model call the same functions, so that they get the same
pixels. `augment_bytes` decodes no more of a JPEG file than its crop needs. Without `fast_decode`
the pixels are those of decoding the whole file first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import tensorflow as tf

from cnnkit.data.augmentation import Augmentation
from cnnkit.data.crops import (
    ReadWindow,
    array_window_reader,
    augment_image,
    crop_image,
    crop_window,
    flip_and_color,
)

FORMATS = "JPEG, PNG, BMP, GIF or WebP"
# Fractions of its sides at which a JPEG decoder returns an image for less work than the whole.
REDUCTIONS = (1, 2, 4, 8)


def decode_image(data: tf.Tensor) -> tf.Tensor:
    """Decode one encoded image to RGB.

    Gray becomes three equal channels, transparency is dropped, and an animation is reduced to its
    first frame.

    Args:
        data: () string, the bytes of a JPEG, PNG, BMP, GIF or WebP file.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not such an image.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.data import decode_image
        >>> png = tf.io.encode_png(tf.zeros((4, 6, 1), tf.uint8))
        >>> decode_image(png).shape
        TensorShape([4, 6, 3])
    """
    # TensorFlow's BMP decoder is the only one that does not convert channels, so it returns those
    # of the file.
    is_bmp = tf.strings.regex_full_match(tf.strings.substr(data, 0, 2), "BM")
    image = tf.cond(
        is_bmp,
        lambda: _to_rgb(tf.io.decode_bmp(data, channels=0)),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def resize_shorter_side(image: tf.Tensor, size: int) -> tf.Tensor:
    """Rescale the shorter side to `size` and crop the center (Krizhevsky 2012, section 2).

    Bilinear with antialiasing; the papers do not name their filter.

    Args:
        image: (h, w, 3), any number type, RGB 0..255.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) float32 RGB 0..255.

    Example:
        >>> resize_shorter_side(tf.zeros((40, 60, 3)), 32).shape
        TensorShape([32, 32, 3])
    """
    return augment_image(image, Augmentation(size), {})


def augment_bytes(
    data: tf.Tensor, augmentation: Augmentation, parameters: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Decode, rescale, crop, mirror and tint one image.

    Args:
        data: () string, the bytes of a file that `cnnkit.data.decode_image` can decode.
        augmentation: The settings.
        parameters: One row of the result of `cnnkit.data.augmentation.sample_augmentation`.

    Returns:
        (size, size, 3) float32 RGB, 0..255 plus any color noise.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not an image.

    Example:
        >>> from cnnkit.data import Augmentation
        >>> file = tf.io.encode_jpeg(tf.zeros((40, 60, 3), tf.uint8))
        >>> augment_bytes(file, Augmentation(32), {}).shape
        TensorShape([32, 32, 3])
    """
    is_jpeg, image, sides = _inspect(data)
    scaled, offset = crop_window(sides, augmentation, parameters)
    reduction = tf.constant(0)
    if augmentation.fast_decode:
        fits = tf.constant(REDUCTIONS[1:]) * tf.reduce_min(scaled) <= tf.reduce_min(sides)
        reduction = tf.reduce_sum(tf.cast(is_jpeg & fits, tf.int32))
        # The decoder rounds up a side that the reduction does not divide.
        sides = -(-sides // tf.gather(REDUCTIONS, reduction))
    size, fast = augmentation.image_size, augmentation.fast_decode
    read = _window_reader(
        is_jpeg, image, lambda window: _decode_window(data, window, reduction, fast)
    )
    crop = crop_image(read, sides, scaled, offset, size, fast=fast)
    return flip_and_color(tf.ensure_shape(crop, (size, size, 3)), parameters)


def file_window_reader(data: tf.Tensor) -> tuple[tf.Tensor, ReadWindow]:
    """Return the size of an encoded image and a function that decodes its windows.

    Args:
        data: () string, the bytes of a file that `cnnkit.data.decode_image` can decode.

    Returns:
        Height and width, (2,) int32, and the reader of windows.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not an image.
    """
    is_jpeg, image, sides = _inspect(data)
    decode_window = functools.partial(tf.io.decode_and_crop_jpeg, data, channels=3)
    return sides, _window_reader(is_jpeg, image, decode_window)


def _to_rgb(image: tf.Tensor) -> tf.Tensor:
    channels = tf.shape(image)[-1]
    return tf.cond(channels == 1, lambda: tf.repeat(image, 3, axis=-1), lambda: image[..., :3])


def _inspect(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return if a file is a JPEG, the pixels of any other file, and height and width."""
    is_jpeg = tf.io.is_jpeg(data)
    # Other formats have to be decoded to learn their size. The branches are kept small, because
    # the one that is not taken costs time too.
    image = tf.cond(is_jpeg, lambda: tf.zeros((0, 0, 3), tf.uint8), lambda: decode_image(data))
    sides = tf.cond(
        is_jpeg, lambda: tf.io.extract_jpeg_shape(data)[:2], lambda: tf.shape(image)[:2]
    )
    return is_jpeg, image, sides


def _window_reader(
    is_jpeg: tf.Tensor, image: tf.Tensor, decode_window: Callable[[tf.Tensor], tf.Tensor]
) -> ReadWindow:
    def read(begin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            is_jpeg,
            lambda: decode_window(tf.concat([begin, size], axis=0)),
            lambda: array_window_reader(image)(begin, size),
        )

    return read


def _decode_window(
    data: tf.Tensor, window: tf.Tensor, reduction: tf.Tensor, fast: bool
) -> tf.Tensor:
    """Decode a window, (4,) int32, of a JPEG file, at a reduced size if `fast`."""
    if not fast:
        return tf.io.decode_and_crop_jpeg(data, window, channels=3)

    def decode_reduced(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_and_crop_jpeg(
            data,
            window,
            channels=3,
            ratio=ratio,
            dct_method="INTEGER_FAST",
            fancy_upscaling=False,
        )

    return tf.switch_case(reduction, [decode_reduced(ratio) for ratio in REDUCTIONS])

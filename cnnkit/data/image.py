"""From the bytes of a file to the pixels that a network takes, as TensorFlow graph functions.

Training, evaluation and the exported model call the same two functions, so that they see the same
pixels.
"""

from __future__ import annotations

import tensorflow as tf

from cnnkit.data.augmentation import Augmentation
from cnnkit.data.crops import augment

FORMATS = "JPEG, PNG, BMP, GIF or WebP"


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes one encoded image to RGB.

    Grey becomes three equal channels, transparency is dropped, an animation is its first frame.

    Args:
        data: () string, a JPEG, PNG, BMP, GIF or WebP file.

    Returns:
        (h, w, 3) uint8.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are no such image.

    Example:
        >>> import tensorflow as tf
        >>> from cnnkit.data import decode
        >>> png = tf.io.encode_png(tf.zeros((4, 6, 1), tf.uint8))
        >>> decode(png).shape
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


def fit(image: tf.Tensor, size: int) -> tf.Tensor:
    """Rescales the shorter side to `size` and cuts out the centre (Krizhevsky 2012, section 2).

    Bilinear with antialiasing: the papers do not name their filter.

    Args:
        image: (h, w, 3), any number type, 0..255.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) float32 in 0..255.
    """
    return augment(image, Augmentation(size), {})


def _to_rgb(image: tf.Tensor) -> tf.Tensor:
    channels = tf.shape(image)[-1]
    return tf.cond(channels == 1, lambda: tf.repeat(image, 3, axis=-1), lambda: image[..., :3])

"""Read an image file for a command."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnnkit.errors import DataError, UsageError


def read_image(path: str, size: int | None) -> np.ndarray:
    """Read an image file in the size of a network.

    Args:
        path: The file.
        size: Side of the central crop in pixels; None leaves the image as it is.

    Returns:
        The image, (size, size, 3) float32 RGB in 0..255, or (height, width, 3) without a size.

    Raises:
        UsageError: If there is no such file.
        DataError: If it cannot be decoded.
    """
    import tensorflow as tf

    from cnnkit.data import decode_image, resize_shorter_side
    from cnnkit.data.decode import FORMATS

    if not Path(path).is_file():
        raise UsageError(f"No image file {path}")
    try:
        image = decode_image(tf.constant(Path(path).read_bytes()))
        resized = resize_shorter_side(image, size) if size else tf.cast(image, tf.float32)
        return np.asarray(resized.numpy())
    except tf.errors.InvalidArgumentError as error:
        raise DataError(f"{path} must be an image", expected=f"a {FORMATS} file") from error

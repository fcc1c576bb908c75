"""Reading the image file that a command is asked about."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnnkit.errors import DataError, UsageError


def read_image(path: str, size: int | None) -> np.ndarray:
    """Returns the image as the network sees it, (size, size, 3) float32 RGB 0..255.

    A network of no fixed size, None, sees the image as it is.

    Raises:
        UsageError: If there is no such file.
        DataError: If it is no image.
    """
    import tensorflow as tf

    from cnnkit.data import decode_image, resize_shorter_side
    from cnnkit.data.decode import FORMATS

    if not Path(path).is_file():
        raise UsageError(f"No image file {path}")
    try:
        image = decode_image(tf.constant(Path(path).read_bytes()))
        return (resize_shorter_side(image, size) if size else tf.cast(image, tf.float32)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise DataError(f"{path} is no image", expected=f"a {FORMATS} file") from error

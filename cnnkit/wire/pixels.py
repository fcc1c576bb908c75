"""The legal values of `images`, the input of exported models that takes pixels.

The exported graph, the embedded server and the client refuse the same values with the same text.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

# Name of the input.
IMAGES = "images"
# Pixels are in 0..255. Interpolation exceeds the range: a quarter of it is accepted on either side.
LEAST_PIXEL, LARGEST_PIXEL = -64.0, 319.0
# Text of the error, with the value.
INVALID_PIXEL = (
    f"pixels must be in 0..255 ({LEAST_PIXEL:g} to {LARGEST_PIXEL:g} is accepted), received {{}}"
)


def find_invalid_pixel(images: npt.NDArray[Any]) -> str | None:
    """Return the text of the error for the first image that holds an invalid pixel, or None.

    Args:
        images: (n, ...) numbers.

    Example:
        >>> import numpy as np
        >>> find_invalid_pixel(np.zeros((2, 8, 8, 3))) is None
        True
        >>> find_invalid_pixel(np.array([[0.0], [np.nan]]))
        'images[1]: pixels must be in 0..255 (-64 to 319 is accepted), received nan'
    """
    # NaN is in no range, and NumPy's minimum and maximum keep it.
    if not images.size or (images.min() >= LEAST_PIXEL and images.max() <= LARGEST_PIXEL):
        return None
    invalid = ~((images >= LEAST_PIXEL) & (images <= LARGEST_PIXEL))
    row = int(invalid.reshape(len(images), -1).any(axis=1).argmax())
    value = images[row][invalid[row]].flat[0]
    return f"{IMAGES}[{row}]: {INVALID_PIXEL.format(f'{value:g}')}"

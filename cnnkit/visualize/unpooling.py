"""Max-pooling that remembers where its maxima were, and the way back down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from cnnkit.errors import UsageError


@dataclass(frozen=True)
class Switches:
    """Where the maxima of a pooling were.

    Attributes:
        places: (n, h', w', c) int64, for every pooled value the row of its maximum times the width
            of the map below plus its column; the first in row-major order among equals.
        below: (n, h, w, c), the shape of the map below.
    """

    places: np.ndarray
    below: tuple[int, int, int, int]


def pool(
    values: np.ndarray,
    size: int | tuple[int, int] = 2,
    stride: int | tuple[int, int] = 2,
    padding: str = "valid",
) -> tuple[np.ndarray, Switches]:
    """Returns the maxima of the windows of a map, and where they were.

    Args:
        values: (n, h, w, c) float.
        size: Side of the windows, or (rows, columns).
        stride: Their step, or (rows, columns).
        padding: `"valid"` or `"same"`.

    Example:
        >>> import numpy as np
        >>> from cnnkit.visualize import pool
        >>> pooled, switches = pool(np.array([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1))
        >>> pooled.item(), switches.places.item()
        (5.0, 1)
    """
    pooled, index = tf.nn.max_pool_with_argmax(values, size, stride, padding.upper())
    # TensorFlow counts the channels too: (row * width + column) * channels + channel.
    return pooled.numpy(), Switches(index.numpy() // values.shape[-1], values.shape)


def unpool(values: np.ndarray, switches: Switches) -> np.ndarray:
    """Puts every value back to where its maximum was; the rest is zero.

    Overlapping windows may have had the same maximum: then their values add, as it is for the
    transpose of the pooling.

    Args:
        values: (n, h', w', c), one for every switch.
        switches: What `pool` returned.

    Returns:
        (n, h, w, c).

    Raises:
        UsageError: If there is not one value for every switch.

    Example:
        >>> import numpy as np
        >>> from cnnkit.visualize import pool, unpool
        >>> pooled, switches = pool(np.array([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1))
        >>> unpool(pooled, switches)[0, :, :, 0]
        array([[0., 5.],
               [0., 0.]])
    """
    values = np.asarray(values)
    if values.shape != switches.places.shape:
        raise UsageError(
            "Unpooling needs one value for every switch",
            expected=switches.places.shape,
            received=values.shape,
        )
    images, height, width, channels = switches.below
    below = np.zeros((images, height * width, channels), values.dtype)
    image, channel = np.ogrid[:images, :channels]
    for row, column in np.ndindex(values.shape[1:3]):
        below[image, switches.places[:, row, column], channel] += values[:, row, column]
    return below.reshape(switches.below)

"""Images as networks take them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnkit.errors import DataError, UsageError
from cnnkit.models.graph import Graph


def checked_images(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Returns images as a batch, (n, h, w, c) float32, that fits a network.

    Args:
        graph: The network.
        images: (n, h, w, c) or (h, w, c).

    Raises:
        UsageError: If they do not fit.
        DataError: If pixels are not finite.
    """
    images = np.asarray(images, np.float32)
    if images.ndim == 3:
        images = images[None]
    check_fits(graph, images.shape)
    for index in np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3))):
        raise DataError(f"Image {index} has pixels that are not finite")
    return images


def check_fits(graph: Graph, shape: Sequence[int]) -> None:
    """Makes sure that a batch of images of this shape fits a network.

    Raises:
        UsageError: If it does not.
    """
    expected = graph.image_shape
    fits = len(shape) == 4 and all(
        want is None or want == have for want, have in zip(expected, shape[1:], strict=True)
    )
    if not fits:
        raise UsageError(
            "The images do not fit the network",
            expected=f"(n, {', '.join('any' if side is None else str(side) for side in expected)})",
            received=tuple(shape),
        )


def checked_position(position: Sequence[int], sides: Sequence[int]) -> tuple[int, ...]:
    """Returns a position in a map of these sides.

    Raises:
        UsageError: If there is no such position.
    """
    if len(position) != len(sides) or any(
        not 0 <= index < side for index, side in zip(position, sides, strict=True)
    ):
        raise UsageError(
            "There is no such position in the feature map",
            expected=f"within {' x '.join(map(str, sides)) or 'no map: a dense layer'}",
            received=position,
        )
    return tuple(map(int, position))

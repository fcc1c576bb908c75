"""Options of feature vectors and what they must be together, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from cnnkit.errors import UsageError, unknown_name

AGGREGATES = ("stack", "average", "max")
POOLS = ("flatten", "average", "max")
# Largest side of an image, and number of scales, that a file may name: the memory of a network
# grows with the square of the side. The papers use five scales up to 640.
MAX_SIDE, MAX_SCALES = 4096, 64


def check_feature_options(
    scales: Sequence[int], aggregate: str, pool: str, image_size: int | None
) -> None:
    """Check the options of a feature specification.

    Args:
        scales: Shorter sides of the image in pixels.
        aggregate: How the vectors of several scales are combined.
        pool: How a map becomes a vector.
        image_size: Side of the center crop in pixels, or None.

    Raises:
        UsageError: If one is out of range, or they do not go together.
    """
    if aggregate not in AGGREGATES:
        raise unknown_name("aggregate", aggregate, AGGREGATES)
    if pool not in POOLS:
        raise unknown_name("pooling", pool, POOLS)
    sides = [*scales, *([] if image_size is None else [image_size])]
    if not all(isinstance(side, Integral) and 1 <= side <= MAX_SIDE for side in sides):
        raise UsageError(
            f"`scales` and `image_size` must be integers from 1 to {MAX_SIDE:,}", received=sides
        )
    if scales and pool == "flatten":
        raise UsageError(
            "`pool` must be 'average' or 'max' with `scales`, because maps differ in size",
            received=pool,
        )
    if scales and image_size is not None:
        raise UsageError(
            "`image_size` must be None with `scales`, which see the whole image",
            received=f"scales {tuple(scales)} and image size {image_size}",
        )

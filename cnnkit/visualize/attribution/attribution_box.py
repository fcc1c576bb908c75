"""The box around the part of an image that an attribution map points at."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cnnkit.errors import UsageError
from cnnkit.visualize.attribution.base import Attribution

# Fraction of the largest value above which a position counts (Zhou et al. 2016, section 3.2).
THRESHOLD = 0.2
# Standard deviation of the Gaussian over maps of single pixels, as a fraction of the shorter side.
SMOOTHING = 0.04


def attribution_box(
    result: Attribution | np.ndarray, *, threshold: float = THRESHOLD
) -> tuple[float, float, float, float]:
    """Return the box around the largest connected region of a map above a fraction of its maximum.

    Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", section 3.2. A map
    of single pixels, from a gradient, is blurred first.

    Args:
        result: Result of an attribution method, or a map (h, w), 0 or more.
        threshold: Fraction of the largest value, more than 0 and less than 1.

    Returns:
        Left, top, right and bottom in pixels of the map; right and bottom are exclusive. The whole
        map, if all its values are 0.

    Raises:
        UsageError: If `threshold` is out of range.

    Example:
        >>> import numpy as np
        >>> values = np.zeros((6, 8))
        >>> values[1:4, 2:7] = 1
        >>> values[5, 0] = 1
        >>> attribution_box(values)
        (2.0, 1.0, 7.0, 4.0)
    """
    if not 0 < threshold < 1:
        raise UsageError("`threshold` must be more than 0 and less than 1", received=threshold)
    values = np.asarray(result.map if isinstance(result, Attribution) else result, np.float64)
    if isinstance(result, Attribution) and result.gradient is not None:
        values = ndimage.gaussian_filter(values, SMOOTHING * min(values.shape))
    height, width = values.shape
    if not values.max() > 0:
        return 0.0, 0.0, float(width), float(height)
    regions, count = ndimage.label(values >= threshold * values.max(), np.ones((3, 3)))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    rows, columns = ndimage.find_objects(regions)[int(sizes.argmax())]
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)

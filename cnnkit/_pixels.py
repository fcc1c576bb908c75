"""Arrays as pixels that can be looked at: images, signed values around gray, and maps as heat."""

from __future__ import annotations

import math

import numpy as np

# Fraction of the positive values of a map that share its brightest color.
CLIP_FRACTION = 0.005
# Digits after the point of a number beside a map.
MAX_DIGITS = 8


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Scale pixels of 0..255 to 0..1, and repeat a single channel, which has no color.

    Args:
        image: (h, w, 3) RGB or (h, w, 1) gray, in 0..255.

    Returns:
        (h, w, 3).
    """
    return _repeat_gray(np.clip(image / 255, 0, 1))


def _repeat_gray(pixels: np.ndarray) -> np.ndarray:
    is_gray = pixels.ndim == 3 and pixels.shape[-1] == 1
    return np.repeat(pixels, 3, axis=-1) if is_gray else pixels


def center_on_gray(values: np.ndarray, *, clip_fraction: float = 0.0) -> np.ndarray:
    """Scale signed values to 0..1 with zero at 0.5, which keeps sign and color.

    Args:
        values: Signed values, of any shape.
        clip_fraction: Fraction of the nonzero values, the largest ones, that become black or white.

    Returns:
        Values in 0..1, of the same shape; a single channel (h, w, 1) is repeated to three.
    """
    magnitudes = np.abs(values[values != 0])
    if not magnitudes.size:
        return _repeat_gray(np.full_like(values, 0.5))
    scaled = 0.5 + values / (2 * np.quantile(magnitudes, 1 - clip_fraction))
    return _repeat_gray(np.asarray(np.clip(scaled, 0, 1)))


def brightest_value(values: np.ndarray) -> float:
    """Return the value from which on nonnegative values have the brightest color."""
    positive = values[values > 0]
    return float(np.quantile(positive, 1 - CLIP_FRACTION)) if positive.size else 1.0


def to_unit_range(values: np.ndarray) -> np.ndarray:
    """Scale nonnegative values to 0..1, where `CLIP_FRACTION` of the positive ones share 1."""
    return np.asarray(np.clip(values / brightest_value(values), 0, 1))


def heat(values: np.ndarray) -> np.ndarray:
    """Color a map by its values: black, red, yellow, white.

    Args:
        values: (h, w), 0 or more.

    Returns:
        (h, w, 3) in 0..1.

    Example:
        >>> heat(np.array([[0, 1, 2, 3.0]])).round(1).tolist()
        [[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]]
    """
    return ramp(to_unit_range(values))


def ramp(strength: np.ndarray) -> np.ndarray:
    """Color values of 0..1: black, red, yellow, white.

    Args:
        strength: (h, w).

    Returns:
        (h, w, 3) in 0..1.

    Example:
        >>> ramp(np.array([[0, 0.5]])).tolist()
        [[[0.0, 0.0, 0.0], [1.0, 0.5, 0.0]]]
    """
    return np.asarray(np.clip(3 * strength[..., None] - np.arange(3), 0, 1))


def distinguishing_digits(values: np.ndarray) -> int:
    """Return how many digits after the point tell the values of a map from each other.

    The last digit is about a tenth of the range of the values, or of the value if there is one.

    Args:
        values: Values of any shape.

    Returns:
        0 to `MAX_DIGITS`.

    Example:
        >>> distinguishing_digits(np.array([0.9998, 1.0])), distinguishing_digits(np.array([9, 99]))
        (5, 0)
    """
    span = float(np.ptp(values)) or abs(float(np.max(values))) or 1.0
    return min(max(0, 1 - math.floor(math.log10(span))), MAX_DIGITS)

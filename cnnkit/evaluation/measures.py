"""How sure a counted error is, and how far a confidence can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Standard deviations that hold 95 % of a normal distribution.
Z = 1.959963984540054
BINS = 15


def wilson(wrong: int, images: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of an error that was counted (Wilson 1927).

    Unlike the mean plus and minus its deviation it stays within 0..1, and is not empty where
    nothing was wrong.

    Args:
        wrong: Images that were wrong.
        images: All images, at least 1.

    Example:
        >>> tuple(round(end, 4) for end in wilson(1, 10))
        (0.0179, 0.4042)
    """
    error, spread = wrong / images, Z * Z / images
    middle = (error + spread / 2) / (1 + spread)
    half = math.sqrt(error * (1 - error) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose answer was given with a confidence in (low, high].

    Attributes:
        low: Lower end of the confidence, 0..1.
        high: Its upper end.
        images: How many there are.
        confidence: Mean probability of their most probable class; None without images.
        accuracy: Part of them that was right; None without images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Whether the network is right as often as it says.

    Attributes:
        error: The expected calibration error (Guo et al. 2017): the distance between confidence
            and accuracy, averaged over the images, bin by bin.
        bins: Fifteen bins of equal width.
    """

    error: float
    bins: tuple[ReliabilityBin, ...]


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Calibration:
    """Compares confidence with accuracy.

    Args:
        confidence: (n,) probability of the most probable class, 0..1.
        right: (n,) bool, whether it was the right one.
        bins: Number of bins of equal width.

    Example:
        >>> calibration(np.array([0.75, 0.5]), np.array([True, False])).error
        0.375
    """
    confidence = np.asarray(confidence, np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, confidence, minlength=bins)
    hits = np.bincount(place, np.asarray(right, float), minlength=bins)
    found = tuple(
        ReliabilityBin(
            i / bins,
            (i + 1) / bins,
            int(count),
            float(sums[i] / count) if count else None,
            float(hits[i] / count) if count else None,
        )
        for i, count in enumerate(counts)
    )
    return Calibration(float(np.abs(sums - hits).sum() / len(confidence)), found)

"""Average precision as PASCAL VOC measures it, by both of its definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cnnkit.errors import DataError

LEVELS = 10


def area(scores: np.ndarray, marks: np.ndarray) -> float:
    """Returns the area under the precision-recall curve, the definition of VOC2010 and later.

    The precision at a recall is the best at that recall or a higher one, which makes the curve fall
    monotonically; it is integrated exactly, over every step of the recall.

    Args:
        scores: (n,) float, the higher the more probable. Images of equal scores are found together,
            so that their order does not matter.
        marks: (n,) int: 1 has the class, -1 has not, 0 is difficult and does not count.

    Returns:
        0..1.

    Raises:
        DataError: If no image has the class, or a score is not finite.

    Example:
        >>> import numpy as np
        >>> round(area(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, -1, 1, -1])), 4)
        0.8333
    """
    found, precision, positives = _curve(scores, marks)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(found, prepend=0) * best) / positives)


def eleven_point(scores: np.ndarray, marks: np.ndarray) -> float:
    """Returns the mean of the best precisions at recalls of 0, 0.1 ... 1, as VOC2007 measures.

    Args:
        scores: As `area`.
        marks: As `area`.

    Raises:
        DataError: As `area`.

    Example:
        >>> import numpy as np
        >>> round(eleven_point(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, -1, 1, -1])), 4)
        0.8485
    """
    found, precision, positives = _curve(scores, marks)
    # In whole numbers: 3 of 10 is a recall of 0.3, whatever the rounding of 0.3.
    best = [
        precision[LEVELS * found >= level * positives].max(initial=0) for level in range(LEVELS + 1)
    ]
    return float(np.mean(best))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "area": area,
    "eleven-point": eleven_point,
}


def _curve(scores: np.ndarray, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the images found and the precision at each distinct score, and all there are."""
    counted = np.asarray(marks) != 0
    scores, has = np.asarray(scores, np.float64)[counted], np.asarray(marks)[counted] > 0
    if not np.isfinite(scores).all():
        raise DataError("Scores that are not finite have no order")
    positives = int(has.sum())
    if not positives:
        raise DataError(
            "There is no precision where nothing is to be found",
            expected="at least one image of the class",
            received=f"{len(scores)} images without it",
        )
    order = np.argsort(-scores, kind="stable")
    scores, has = scores[order], has[order]
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    found = np.cumsum(has)[ends]
    return found, found / (ends + 1), positives

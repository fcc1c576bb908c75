"""Average precision of images that may have several classes, as PASCAL VOC defines it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from cnnkit.errors import DataError, UsageError

RECALL_STEPS = 10


def voc2010_average_precision(scores: ArrayLike, voc_labels: ArrayLike) -> float:
    """Return the area under the precision-recall curve, the definition since VOC2010.

    The precision at a recall is the largest precision at that recall or a higher one, so that the
    curve decreases monotonically. It is integrated exactly, over every step of the recall.

    Args:
        scores: (n,) float, higher for images that more probably have the class. Images of equal
            scores are counted together, so that their order does not matter.
        voc_labels: (n,) int: 1 has the class, -1 does not, 0 is difficult and is ignored.

    Returns:
        The average precision, 0..1.

    Raises:
        UsageError: If the labels are not 1, -1 and 0, or not one for each score.
        DataError: If no image has the class, or a score is not finite.

    Example:
        >>> import numpy as np
        >>> scores, voc_labels = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, -1, 1, -1])
        >>> round(voc2010_average_precision(scores, voc_labels), 4)
        0.8333
    """
    return _area(*check_voc_labels(scores, voc_labels, 1))


def _area(scores: np.ndarray, voc_labels: np.ndarray) -> float:
    found, precision, positives = _precision_curve(scores, voc_labels)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(found, prepend=0) * best) / positives)


def voc2007_average_precision(scores: ArrayLike, voc_labels: ArrayLike) -> float:
    """Return the mean of the largest precisions at recalls of 0, 0.1 ... 1, as in VOC2007.

    The precision at a recall is the largest precision at that recall or a higher one.

    Args:
        scores: (n,) float, higher for images that more probably have the class.
        voc_labels: (n,) int: 1 has the class, -1 does not, 0 is difficult and is ignored.

    Returns:
        The average precision, 0..1.

    Raises:
        UsageError: If the labels are not 1, -1 and 0, or not one for each score.
        DataError: If no image has the class, or a score is not finite.

    Example:
        >>> import numpy as np
        >>> scores, voc_labels = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, -1, 1, -1])
        >>> round(voc2007_average_precision(scores, voc_labels), 4)
        0.8485
    """
    return _eleven_point(*check_voc_labels(scores, voc_labels, 1))


def _eleven_point(scores: np.ndarray, voc_labels: np.ndarray) -> float:
    found, precision, positives = _precision_curve(scores, voc_labels)
    # Compared in whole numbers: as a float, 3 of 10 may be below a recall level of 0.3.
    best = [
        precision[RECALL_STEPS * found >= level * positives].max(initial=0)
        for level in range(RECALL_STEPS + 1)
    ]
    return float(np.mean(best))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "area": _area,
    "eleven-point": _eleven_point,
}


def check_voc_labels(
    values: ArrayLike, voc_labels: ArrayLike, axes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores or features and their labels as arrays.

    An indicator of 0 and 1, as scikit-learn takes it, is refused: its 0 would mean difficult.

    Args:
        values: (n,) or (n, m).
        voc_labels: (n,) or (n, classes), 1, -1 or 0.
        axes: Number of axes of both, 1 or 2.

    Raises:
        UsageError: If the arrays have other shapes, or the labels other values.
    """
    rows = np.asarray(values)
    try:
        marks = np.asarray(voc_labels)
    except ValueError as error:  # Lists of different lengths.
        raise UsageError("`voc_labels` must be an array", received=error) from error
    if rows.ndim != axes or marks.ndim != axes or len(rows) != len(marks):
        raise UsageError(
            f"`voc_labels` must have a row for each image and {axes} axes",
            expected=f"as many rows as the scores or features of shape {rows.shape}",
            received=f"shape {marks.shape}",
        )
    if marks.dtype.kind not in "biuf" or not np.isin(marks, (-1, 0, 1)).all():
        raise UsageError(
            "`voc_labels` must be 1 (has the class), -1 (does not) or 0 (difficult, ignored)",
            received=", ".join(str(one) for one in np.unique(marks.astype(str))[:5]),
        )
    if (marks == 0).any() and not (marks < 0).any():
        raise UsageError(
            "`voc_labels` must be -1 for images without the class; 0 is difficult and is ignored",
            received="0 and 1 only",
            hint="For an indicator y of 0 and 1, give 2 * y - 1",
        )
    return rows, marks


def _precision_curve(
    scores: np.ndarray, voc_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return true positives and precision at each distinct score, and the number of positives."""
    counted = np.asarray(voc_labels) != 0
    scores, has = np.asarray(scores, np.float64)[counted], np.asarray(voc_labels)[counted] > 0
    if not np.isfinite(scores).all():
        raise DataError("`scores` must be finite")
    positives = int(has.sum())
    if not positives:
        raise DataError(
            "`voc_labels` must have at least one image of the class",
            received=f"{len(scores)} images without it",
        )
    order = np.argsort(-scores, kind="stable")
    scores, has = scores[order], has[order]
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    found = np.cumsum(has)[ends]
    return found, found / (ends + 1), positives


METRIC = "area"


def average_precisions(scores: np.ndarray, voc_labels: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return for each metric the average precision of each class.

    Args:
        scores: (n, classes) float.
        voc_labels: (n, classes), 1, -1 or 0.

    Raises:
        UsageError: If the labels are not 1, -1 and 0, or not one for each score.
        DataError: If no image has any class.
    """
    scores, voc_labels = check_voc_labels(scores, voc_labels, 2)
    if scores.shape != voc_labels.shape:
        raise UsageError(
            "`scores` must hold one for each image and class",
            expected=f"shape {voc_labels.shape}",
            received=f"shape {scores.shape}",
        )
    if not (voc_labels > 0).any():
        raise DataError("`voc_labels` must have a positive label: no test image has any class")
    return {
        name: tuple(
            metric(column, of_class) if (of_class > 0).any() else float("nan")
            for column, of_class in zip(scores.T, voc_labels.T, strict=True)
        )
        for name, metric in METRICS.items()
    }

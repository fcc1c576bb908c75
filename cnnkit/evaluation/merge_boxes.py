"""Greedy merging of the boxes that a network predicts at several places of an image."""

from __future__ import annotations

import numpy as np

from cnnkit.data.boxes import overlap

# Boxes of the largest scores that are merged; the work grows with the cube of their number.
MAX_MERGED = 200


def merge_boxes(
    boxes: np.ndarray, scores: np.ndarray, *, min_overlap: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Merge the two boxes that overlap the most, until no pair overlaps enough.

    A merged box is the mean of its boxes, weighted by their scores, and its score is their sum: a
    box that many places agree on comes first. Sermanet et al. 2014, section 4.3, whose measure of
    a pair, the distance of the centers and the area of the intersection, has no stated weights; it
    is the intersection over union here.

    Args:
        boxes: (n, 4): left, top, right and bottom, n at least 1.
        scores: (n,), more than 0: the probability of the class at each place.
        min_overlap: Intersection over union, 0..1, from which on boxes are merged.

    Returns:
        The merged boxes, (m, 4), and their scores, (m,), best first.

    Example:
        >>> boxes = np.array([[0.0, 0, 4, 4], [0, 0, 4, 6], [9, 9, 10, 10]])
        >>> merged, scores = merge_boxes(boxes, np.array([0.25, 0.75, 0.5]))
        >>> merged.tolist(), scores.tolist()
        ([[0.0, 0.0, 4.0, 5.5], [9.0, 9.0, 10.0, 10.0]], [1.0, 0.5])
    """
    kept = np.argsort(-scores, kind="stable")[:MAX_MERGED]
    boxes, scores = boxes[kept].astype(np.float64), scores[kept].astype(np.float64)
    overlaps = overlap(boxes[:, None], boxes[None]).numpy()
    np.fill_diagonal(overlaps, -1)
    while len(boxes) > 1:
        first, second = np.unravel_index(overlaps.argmax(), overlaps.shape)
        if overlaps[first, second] < min_overlap:
            break
        pair = [first, second]
        boxes[first] = np.average(boxes[pair], axis=0, weights=scores[pair])
        scores[first] = scores[pair].sum()
        boxes, scores = np.delete(boxes, second, axis=0), np.delete(scores, second)
        overlaps = np.delete(np.delete(overlaps, second, axis=0), second, axis=1)
        first -= first > second
        row = overlap(boxes[first], boxes).numpy()
        row[first] = -1
        overlaps[first], overlaps[:, first] = row, row
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]

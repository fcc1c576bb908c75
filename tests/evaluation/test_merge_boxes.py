import numpy as np
import pytest

from cnnkit.evaluation.merge_boxes import MAX_MERGED, merge_boxes


def test_boxes_are_merged_pair_by_pair_with_the_largest_overlap_first():
    # Overlaps: 0.8 of the first two, then 0.5 of the merged one with the third.
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4.5], [50, 50, 60, 60]])
    merged, scores = merge_boxes(boxes, np.array([0.5, 0.5, 1.0, 0.4]))
    np.testing.assert_allclose(merged, [[0, 0, 10, 6.75], [50, 50, 60, 60]])
    np.testing.assert_allclose(scores, [2.0, 0.4])


def test_a_box_of_many_places_comes_before_one_of_a_higher_score():
    boxes = np.array([[0.0, 0, 4, 4]] * 3 + [[9, 9, 12, 12]])
    merged, scores = merge_boxes(boxes, np.array([0.4, 0.4, 0.4, 0.9]))
    np.testing.assert_allclose(merged[0], [0, 0, 4, 4])
    np.testing.assert_allclose(scores, [1.2, 0.9])


def test_boxes_that_overlap_less_stay_apart():
    boxes = np.array([[0.0, 0, 4, 4], [2, 0, 6, 4]])
    merged, _ = merge_boxes(boxes, np.ones(2))
    assert len(merged) == 2
    assert len(merge_boxes(boxes, np.ones(2), min_overlap=0.3)[0]) == 1


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_the_order_of_the_boxes_does_not_count(order):
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 8], [30, 30, 34, 34]])
    merged, scores = merge_boxes(boxes[order], np.array([0.25, 0.75, 0.5])[order])
    np.testing.assert_allclose(merged, [[0, 0, 10, 8.5], [30, 30, 34, 34]])
    np.testing.assert_allclose(scores, [1, 0.5])


def test_only_the_best_of_many_boxes_are_merged():
    boxes = np.arange(MAX_MERGED + 50)[:, None] * 10 + np.array([[0, 0, 5, 5]])
    _, scores = merge_boxes(boxes, np.arange(len(boxes)) + 1.0)
    assert len(scores) == MAX_MERGED and scores.min() == 51

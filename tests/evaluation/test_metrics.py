"""Intervals, calibration and counts against formulas, scikit-learn and loops."""

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from cnnkit.evaluation import wilson_interval
from cnnkit.evaluation.metrics import calibration_bins, summarize_predictions
from cnnkit.evaluation.predictions import Predictions

LABELS = tuple("abcdefgh")


@pytest.mark.parametrize(("wrong", "images"), [(0, 5), (5, 5), (3, 17), (407, 1000), (1, 50000)])
def test_wilson_interval_by_hand(wrong, images):
    """Wilson 1927: the values p for which the error is 1.96 standard deviations away."""
    error, spread = wrong / images, 1.959963984540054**2 / images
    middle = (error + spread / 2) / (1 + spread)
    half = math.sqrt(error * (1 - error) * spread + spread * spread / 4) / (1 + spread)
    expected = max(0.0, middle - half), min(1.0, middle + half)
    assert wilson_interval(wrong, images) == pytest.approx(expected, rel=1e-13, abs=1e-15)
    assert all(type(end) is float and 0 <= end <= 1 for end in wilson_interval(wrong, images))


def test_calibration_is_a_loop_over_bins(rng):
    confidence = rng.uniform(0.1, 1, 500)
    confidence[:3] = 1.0, 1 / 15, 0.2
    right = rng.uniform(size=500) < confidence**2
    found = calibration_bins(confidence, right)
    error = 0.0
    for i, one in enumerate(found.bins):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        assert one.images == inside.sum()
        if inside.any():
            assert one.confidence == pytest.approx(confidence[inside].mean())
            assert one.accuracy == pytest.approx(right[inside].mean())
            gap = abs(confidence[inside].mean() - right[inside].mean())
            error += inside.mean() * gap
    assert found.error == pytest.approx(error)
    assert 0.05 < found.error < 0.5
    assert sum(one.images for one in found.bins) == 500


def test_counts_are_scikit_learns(rng):
    labels = rng.integers(0, 7, 90)
    scores = rng.normal(size=(90, 8))
    scores[np.arange(90), labels] += 1.0
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    predictions = Predictions.empty(90, 1, 8)
    for start in range(0, 90, 40):
        predictions.add([np.log(probabilities[start : start + 40])], labels[start : start + 40])
    names = [f"image{i}" for i in range(90)]
    result = summarize_predictions(predictions, labels, names, LABELS, [("net", (8,))])
    first = probabilities.argmax(axis=1)
    np.testing.assert_array_equal(
        result.confusion_matrix(), confusion_matrix(labels, first, labels=range(8))
    )
    top5 = top_k_accuracy_score(labels, probabilities, k=5, labels=range(8))
    assert result.top5_error == pytest.approx(1 - top5)
    assert result.classes[7].images == 0
    # The worst mistake is the wrong answer that gave the right class least.
    own = probabilities[np.arange(90), labels]
    wrong = np.flatnonzero(first != labels)
    worst = wrong[own[wrong].argmin()]
    assert result.mistakes[0].index == worst
    assert result.mistakes[0].probability == pytest.approx(own[worst], rel=1e-5)
    assert [p for _, p in result.mistakes[0].top] == pytest.approx(
        np.sort(probabilities[worst])[::-1][:5], rel=1e-5
    )
    assert len(result.mistakes) == min(16, len(wrong))
    assert [one.index for one in result.examples] == [0, 13, 25, 38, 51, 64, 76, 89]

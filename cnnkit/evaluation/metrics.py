"""Results of an evaluation: errors with confidence intervals, confusion matrix, calibration.

The field names of `Evaluation` and of the classes inside it are the keys of the result files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from cnnkit.evaluation.predictions import TOP, Predictions

MISTAKES = 16
EXAMPLES = 8
BINS = 15

Interval = tuple[float, float]


@dataclass(frozen=True)
class Evaluation:
    """Errors on a split, as fractions in 0..1, over all images and by class.

    An image is a top-5 error if its class is not among the five most probable ones.

    Attributes:
        images: Number of images.
        top1_error: Top-1 error of all images.
        top1_interval: Its 95 % Wilson interval.
        top5_error: Top-5 error of all images.
        top5_interval: Its 95 % Wilson interval.
        classes: Errors by class.
        members: Errors of each network by itself, if there are several.
        confusion: (class, predicted class, images), classes by number; pairs that do not occur are
            left out.
        calibration: Confidence compared with accuracy.
        mistakes: Wrong predictions, those with the least probability of the true class first.
        examples: Predictions for evenly spaced images of the split, right and wrong.
    """

    images: int
    top1_error: float
    top1_interval: Interval
    top5_error: float
    top5_interval: Interval
    classes: tuple[ClassErrors, ...]
    members: tuple[ModelErrors, ...]
    confusion: tuple[tuple[int, int, int], ...]
    calibration: CalibrationResult
    mistakes: tuple[ImagePrediction, ...]
    examples: tuple[ImagePrediction, ...]

    def confusion_matrix(self) -> np.ndarray:
        """Return (classes, classes) int: [i, j] counts the images of class i predicted as j."""
        matrix = np.zeros((len(self.classes), len(self.classes)), int)
        for label, predicted, images in self.confusion:
            matrix[label, predicted] = images
        return matrix


@dataclass(frozen=True)
class ClassErrors:
    """Errors on the images of one class.

    Attributes:
        label: Name of the class.
        images: Number of its images.
        top1_error: Top-1 error, 0..1; None without images.
        top5_error: Top-5 error, 0..1; None without images.
    """

    label: str
    images: int
    top1_error: float | None
    top5_error: float | None


@dataclass(frozen=True)
class ModelErrors:
    """Errors of one network of an ensemble by itself.

    Attributes:
        name: Name of the network.
        scales: Scales at which it was tested.
        top1_error: Top-1 error, 0..1.
        top1_interval: Its 95 % Wilson interval.
        top5_error: Top-5 error, 0..1.
        top5_interval: Its 95 % Wilson interval.
    """

    name: str
    scales: tuple[int, ...]
    top1_error: float
    top1_interval: Interval
    top5_error: float
    top5_interval: Interval


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction for one image.

    Attributes:
        index: Index of the image in its split.
        name: Name of the image.
        label: Its class.
        probability: Predicted probability of that class, 0..1.
        top: The most probable classes with their probabilities, in order.
    """

    index: int
    name: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class CalibrationResult:
    """Comparison of the confidence of predictions with their accuracy.

    Attributes:
        error: Expected calibration error (Guo et al. 2017): the distance between confidence and
            accuracy in a bin, averaged over the images.
        bins: Bins of equal width.
    """

    error: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose confidence, the probability of the predicted class, is in (low, high].

    Attributes:
        low: Lower end of the confidence, 0..1.
        high: Upper end of the confidence, 0..1.
        images: Number of images.
        confidence: Mean confidence; None without images.
        accuracy: Fraction of correct predictions; None without images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


def summarize_predictions(
    predictions: Predictions,
    labels: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str],
    members: Sequence[tuple[str, tuple[int, ...]]],
) -> Evaluation:
    """Return the errors of predictions.

    Args:
        predictions: Predictions for all images.
        labels: (n,) int, the true classes.
        names: Names of the images.
        class_names: Class names.
        members: Name and scales of each network.
    """
    rank, predicted = predictions.rank, predictions.top[:, 0]
    wrong = np.flatnonzero(rank >= 1)
    worst = wrong[np.argsort(predictions.right_logs[wrong], kind="stable")][:MISTAKES]
    # Splits are sorted by class: evenly spaced images are of many classes.
    spaced = np.unique(np.linspace(0, len(rank) - 1, EXAMPLES).round().astype(int))

    def image_prediction(index: int) -> ImagePrediction:
        pairs = zip(predictions.top[index], np.exp(predictions.top_logs[index]), strict=True)
        return ImagePrediction(
            int(index),
            names[index],
            class_names[labels[index]],
            float(np.exp(predictions.right_logs[index])),
            tuple((class_names[label], float(probability)) for label, probability in pairs),
        )

    pairs, counts = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    return Evaluation(
        images=len(rank),
        **_errors_with_intervals(rank),
        classes=tuple(_class_errors(name, rank[labels == i]) for i, name in enumerate(class_names)),
        members=tuple(
            ModelErrors(name, scales, **_errors_with_intervals(own))
            for (name, scales), own in zip(members, predictions.ranks, strict=True)
            if len(members) > 1
        ),
        confusion=tuple(
            (int(label), int(other), int(count))
            for (label, other), count in zip(pairs, counts, strict=True)
        ),
        calibration=calibration_bins(np.exp(predictions.top_logs[:, 0]), rank == 0),
        mistakes=tuple(map(image_prediction, worst)),
        examples=tuple(map(image_prediction, spaced)),
    )


def _errors_with_intervals(ranks: np.ndarray) -> dict[str, Any]:
    errors: dict[str, Any] = {}
    for name, place in (("top1", 1), ("top5", TOP)):
        wrong = int((ranks >= place).sum())
        errors[f"{name}_error"] = wrong / len(ranks)
        errors[f"{name}_interval"] = wilson_interval(wrong, len(ranks))
    return errors


def _class_errors(label: str, ranks: np.ndarray) -> ClassErrors:
    if not len(ranks):
        return ClassErrors(label, 0, None, None)
    top1, top5 = (int((ranks >= place).sum()) / len(ranks) for place in (1, TOP))
    return ClassErrors(label, len(ranks), top1, top5)


def wilson_interval(wrong: int, images: int) -> Interval:
    """Return the 95 % Wilson score interval of a counted error (Wilson 1927).

    Unlike the error plus and minus its standard deviation, the interval stays within 0..1 and is
    not empty for an error of 0.

    Args:
        wrong: Number of wrong images.
        images: Number of images, at least 1.

    Returns:
        Lower and upper end, 0..1.

    Example:
        >>> tuple(round(end, 4) for end in wilson_interval(1, 10))
        (0.0179, 0.4042)
    """
    interval = binomtest(wrong, images).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def calibration_bins(
    confidence: np.ndarray, correct: np.ndarray, bins: int = BINS
) -> CalibrationResult:
    """Compare the confidence of predictions with their accuracy.

    `sklearn.calibration.calibration_curve` returns neither the number of images of a bin nor the
    empty bins, which the error and the reliability diagram need.

    Args:
        confidence: (n,) probability of the most probable class, 0..1.
        correct: (n,) bool, whether it is the true class.
        bins: Number of bins of equal width.

    Example:
        >>> calibration_bins(np.array([0.75, 0.5]), np.array([True, False])).error
        0.375
    """
    confidence = np.asarray(confidence, np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, confidence, minlength=bins)
    hits = np.bincount(place, np.asarray(correct, float), minlength=bins)
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
    return CalibrationResult(float(np.abs(sums - hits).sum() / len(confidence)), found)

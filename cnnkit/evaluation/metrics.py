"""What an evaluation finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnkit.evaluation.predictions import TOP, Predictions

# Standard deviations that hold 95 % of a normal distribution.
Z = 1.959963984540054
BINS = 15


def wilson_interval(wrong: int, images: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of an error that was counted (Wilson 1927).

    Unlike the mean plus and minus its deviation it stays within 0..1, and is not empty where
    nothing was wrong.

    Args:
        wrong: Images that were wrong.
        images: All images, at least 1.

    Example:
        >>> tuple(round(end, 4) for end in wilson_interval(1, 10))
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
class CalibrationResult:
    """Whether the network is right as often as it says.

    Attributes:
        error: The expected calibration error (Guo et al. 2017): the distance between confidence
            and accuracy, averaged over the images, bin by bin.
        bins: Fifteen bins of equal width.
    """

    error: float
    bins: tuple[ReliabilityBin, ...]


def calibration_bins(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS
) -> CalibrationResult:
    """Compares confidence with accuracy.

    Args:
        confidence: (n,) probability of the most probable class, 0..1.
        right: (n,) bool, whether it was the right one.
        bins: Number of bins of equal width.

    Example:
        >>> calibration_bins(np.array([0.75, 0.5]), np.array([True, False])).error
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
    return CalibrationResult(float(np.abs(sums - hits).sum() / len(confidence)), found)


MISTAKES = 16
EXAMPLES = 8

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassErrors:
    """The errors on the images of one class; errors are fractions in 0..1, None without images."""

    label: str
    images: int
    top1_error: float | None
    top5_error: float | None


@dataclass(frozen=True)
class ModelErrors:
    """The errors of one network of an ensemble by itself, with their 95 % intervals."""

    name: str
    scales: tuple[int, ...]
    top1_error: float
    top1_interval: Interval
    top5_error: float
    top5_interval: Interval


@dataclass(frozen=True)
class Prediction:
    """What was answered to one image.

    Attributes:
        index: Of the image in its split.
        name: Of the image.
        label: Its class.
        probability: Of that class, as the network says, 0..1.
        top: The most probable classes and their probabilities, the most probable first.
    """

    index: int
    name: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Evaluation:
    """The errors on a split, as fractions in 0..1, over all images and class by class.

    An image counts as a top-5 error when its class is not among the five most probable ones.

    Attributes:
        images: Number of images.
        top1_error: Of all images.
        top1_interval: Wilson's 95 % interval of it.
        top5_error: Of all images.
        top5_interval: Wilson's 95 % interval of it.
        classes: The errors of each class.
        members: The errors of each network by itself, where there are several.
        confusion: (class, answer, images), classes by their number; pairs that did not occur are
            left out.
        calibration: Whether it is right as often as it says.
        mistakes: Wrong answers, those first that gave the right class the least probability.
        examples: Answers to images from all over the split, right and wrong.
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
    mistakes: tuple[Prediction, ...]
    examples: tuple[Prediction, ...]

    def confusion_matrix(self) -> np.ndarray:
        """Returns (classes, classes) int: row i, column j counts images of class i answered j."""
        matrix = np.zeros((len(self.classes), len(self.classes)), int)
        for label, answer, images in self.confusion:
            matrix[label, answer] = images
        return matrix


def summarize_predictions(
    answers: Predictions,
    right: np.ndarray,
    names: Sequence[str],
    labels: Sequence[str],
    members: Sequence[tuple[str, tuple[int, ...]]],
) -> Evaluation:
    """Counts what was answered.

    Args:
        answers: To all images.
        right: (n,) int, the right classes.
        names: Of the images.
        labels: Names of the classes.
        members: Name and scales of each network.
    """
    rank, first = answers.rank, answers.top[:, 0]
    wrong = np.flatnonzero(rank >= 1)
    worst = wrong[np.argsort(answers.right_logs[wrong], kind="stable")][:MISTAKES]
    # Splits are sorted by class: images at equal distances are of many classes.
    spread = np.unique(np.linspace(0, len(rank) - 1, EXAMPLES).round().astype(int))

    def answer(index: int) -> Prediction:
        pairs = zip(answers.top[index], np.exp(answers.top_logs[index]), strict=True)
        return Prediction(
            int(index),
            names[index],
            labels[right[index]],
            float(np.exp(answers.right_logs[index])),
            tuple((labels[label], float(probability)) for label, probability in pairs),
        )

    pairs, counts = np.unique(np.stack([right, first], axis=1), axis=0, return_counts=True)
    return Evaluation(
        images=len(rank),
        **_errors(rank),
        classes=tuple(_of_class(name, rank[right == i]) for i, name in enumerate(labels)),
        members=tuple(
            ModelErrors(name, scales, **_errors(own))
            for (name, scales), own in zip(members, answers.ranks, strict=True)
            if len(members) > 1
        ),
        confusion=tuple(
            (int(label), int(said), int(count))
            for (label, said), count in zip(pairs, counts, strict=True)
        ),
        calibration=calibration_bins(np.exp(answers.top_logs[:, 0]), rank == 0),
        mistakes=tuple(map(answer, worst)),
        examples=tuple(map(answer, spread)),
    )


def _errors(rank: np.ndarray) -> dict:
    errors = {}
    for name, place in (("top1", 1), ("top5", TOP)):
        wrong = int((rank >= place).sum())
        errors[f"{name}_error"] = wrong / len(rank)
        errors[f"{name}_interval"] = wilson_interval(wrong, len(rank))
    return errors


def _of_class(label: str, ranks: np.ndarray) -> ClassErrors:
    if not len(ranks):
        return ClassErrors(label, 0, None, None)
    errors = _errors(ranks)
    return ClassErrors(label, len(ranks), errors["top1_error"], errors["top5_error"])

"""What an evaluation finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnkit.evaluation.answers import TOP, Answers
from cnnkit.evaluation.measures import Calibration, calibration, wilson

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
class MemberErrors:
    """The errors of one network of an ensemble by itself, with their 95 % intervals."""

    name: str
    scales: tuple[int, ...]
    top1_error: float
    top1_interval: Interval
    top5_error: float
    top5_interval: Interval


@dataclass(frozen=True)
class Answer:
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
    members: tuple[MemberErrors, ...]
    confusion: tuple[tuple[int, int, int], ...]
    calibration: Calibration
    mistakes: tuple[Answer, ...]
    examples: tuple[Answer, ...]

    def confusion_matrix(self) -> np.ndarray:
        """Returns (classes, classes) int: row i, column j counts images of class i answered j."""
        matrix = np.zeros((len(self.classes), len(self.classes)), int)
        for label, answer, images in self.confusion:
            matrix[label, answer] = images
        return matrix


def summarize(
    answers: Answers,
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

    def answer(index: int) -> Answer:
        pairs = zip(answers.top[index], np.exp(answers.top_logs[index]), strict=True)
        return Answer(
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
            MemberErrors(name, scales, **_errors(own))
            for (name, scales), own in zip(members, answers.ranks, strict=True)
            if len(members) > 1
        ),
        confusion=tuple(
            (int(label), int(said), int(count))
            for (label, said), count in zip(pairs, counts, strict=True)
        ),
        calibration=calibration(np.exp(answers.top_logs[:, 0]), rank == 0),
        mistakes=tuple(map(answer, worst)),
        examples=tuple(map(answer, spread)),
    )


def _errors(rank: np.ndarray) -> dict:
    errors = {}
    for name, place in (("top1", 1), ("top5", TOP)):
        wrong = int((rank >= place).sum())
        errors[f"{name}_error"] = wrong / len(rank)
        errors[f"{name}_interval"] = wilson(wrong, len(rank))
    return errors


def _of_class(label: str, ranks: np.ndarray) -> ClassErrors:
    if not len(ranks):
        return ClassErrors(label, 0, None, None)
    errors = _errors(ranks)
    return ClassErrors(label, len(ranks), errors["top1_error"], errors["top5_error"])

"""One linear classifier for each class of images that have several, as for PASCAL VOC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelBinarizer, Normalizer

from cnnkit.data.dataset import TEST_FRACTION
from cnnkit.errors import DataError, UsageError, unknown_name
from cnnkit.transfer.linear_classifier import C_VALUES, DEFAULT_C, KINDS, project_to_row_space

LEVELS = 10


def area_precision(scores: np.ndarray, marks: np.ndarray) -> float:
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
        >>> round(area_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, -1, 1, -1])), 4)
        0.8333
    """
    found, precision, positives = _curve(scores, marks)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(found, prepend=0) * best) / positives)


def eleven_point_precision(scores: np.ndarray, marks: np.ndarray) -> float:
    """Returns the mean of the best precisions at recalls of 0, 0.1 ... 1, as VOC2007 measures.

    Args:
        scores: As `area`.
        marks: As `area`.

    Raises:
        DataError: As `area`.

    Example:
        >>> import numpy as np
        >>> round(eleven_point_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, -1, 1, -1])), 4)
        0.8485
    """
    found, precision, positives = _curve(scores, marks)
    # In whole numbers: 3 of 10 is a recall of 0.3, whatever the rounding of 0.3.
    best = [
        precision[LEVELS * found >= level * positives].max(initial=0) for level in range(LEVELS + 1)
    ]
    return float(np.mean(best))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "area": area_precision,
    "eleven-point": eleven_point_precision,
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


METRIC = "area"


@dataclass(frozen=True)
class MultiLabelScore:
    """What a layer is worth to classifiers of images that have several classes.

    Attributes:
        layer: Name of the layer.
        classifier: `"svm"` or `"softmax"`.
        c: The chosen regularization, one for all classes.
        precisions: For each metric the average precision of each class, 0..1; NaN of a class that
            no test image has.
        training_images: How many.
        test_images: How many.
        pipeline: The fitted scikit-learn pipeline, from features to a column for each class.
    """

    layer: str
    classifier: str
    c: float
    precisions: dict[str, tuple[float, ...]]
    training_images: int
    test_images: int
    pipeline: Pipeline

    def mean(self, metric: str = METRIC) -> float:
        """Mean average precision over the classes that the test images have."""
        return float(np.nanmean(self.precisions[metric]))


def score_multilabel(
    train: np.ndarray,
    train_marks: np.ndarray,
    test: np.ndarray,
    test_marks: np.ndarray,
    layer: str,
    classes: Sequence[str],
    *,
    classifier: str = "svm",
    metric: str = METRIC,
    l2: bool = True,
    seed: int = 0,
) -> MultiLabelScore:
    """Fits on some images and measures the average precisions on others.

    Args:
        train: (n, d), features of the training images.
        train_marks: (n, classes), 1, -1 or 0: see `cnnkit.data.sources.voc.MultiLabelDataset`.
        test: (m, d), of the test images.
        test_marks: (m, classes).
        layer: What they are features of, for the record.
        classes: Names of the classes.
        classifier: `"svm"`, or `"softmax"`, which is a logistic regression for each class here.
        metric: `"area"` or `"eleven-point"`: by which C is chosen. Both are measured.
        l2: Whether vectors get the length 1.
        seed: Of the images that choose C.

    Raises:
        UsageError: If a classifier or a metric does not exist.
        DataError: If a class has no training images, or no test image has any class.
    """
    pipeline, c = fit_multilabel(
        train, train_marks, classes, classifier, metric=metric, l2=l2, seed=seed
    )
    scores = pipeline.decision_function(test)
    return MultiLabelScore(
        layer,
        classifier,
        c,
        average_precisions(scores, test_marks),
        len(train),
        len(test),
        pipeline,
    )


def average_precisions(scores: np.ndarray, marks: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Returns for each metric the average precision of each class, from (n, classes).

    Raises:
        DataError: If no image has any class.
    """
    if not (marks > 0).any():
        raise DataError("No test image has any of the classes")
    return {
        name: tuple(
            metric(column, of_class) if (of_class > 0).any() else float("nan")
            for column, of_class in zip(scores.T, marks.T, strict=True)
        )
        for name, metric in METRICS.items()
    }


def fit_multilabel(
    values: np.ndarray,
    marks: np.ndarray,
    classes: Sequence[str],
    kind: str = "svm",
    *,
    metric: str = METRIC,
    c_values: Sequence[float] = C_VALUES,
    l2: bool = True,
    seed: int = 0,
) -> tuple[Pipeline, float]:
    """Fits a linear classifier for each class against the rest, without its difficult images.

    One C for all classes is chosen on a random fifth of the images by mean average precision: a
    class has too few images there to choose for itself.

    Args:
        values: (n, d).
        marks: (n, classes), 1, -1 or 0.
        classes: Names of the classes.
        kind: `"svm"` or `"softmax"`.
        metric: By which C is chosen.
        c_values: Candidates; of equally good ones the first is taken.
        l2: Whether vectors get the length 1 first.
        seed: Of the choice of the fifth.

    Returns:
        A fitted scikit-learn pipeline whose `decision_function` is (n, classes), and C.

    Raises:
        UsageError: If there is no such kind or metric, or only one class.
        DataError: If a class has no images, or all have it.
    """
    if kind not in KINDS:
        raise unknown_name("classifier", kind, KINDS)
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if len(classes) < 2:
        raise UsageError("One classifier for each class", expected="at least two", received=1)
    for name, column in zip(classes, marks.T, strict=True):
        if not ((column > 0).any() and (column < 0).any()):
            raise DataError(
                f"The class {name} cannot be learned",
                expected="training images with it and without it",
                received=f"{(column > 0).sum()} with and {(column < 0).sum()} without",
            )
    steps = [Normalizer().fit(values[:1])] if l2 else []
    rows = Normalizer().transform(values) if l2 else np.asarray(values)
    reduced, back = project_to_row_space(rows)
    c = _choose(reduced, marks, kind, metric, c_values, seed)
    each = [_fit(reduced, column, kind, c) for column in marks.T]
    for model in each:
        model.coef_ = back(model.coef_)
        model.n_features_in_ = values.shape[1]
    together = OneVsRestClassifier(KINDS[kind](c))
    # What its own `fit` would set; that one cannot leave out other images for every class.
    together.estimators_ = each
    together.label_binarizer_ = LabelBinarizer(sparse_output=True).fit((marks > 0).astype(int))
    together.n_features_in_ = values.shape[1]
    return make_pipeline(*steps, together), c


def _fit(rows, column, kind: str, c: float):
    counted = column != 0
    return KINDS[kind](c).fit(rows[counted], column[counted] > 0)


def _choose(rows, marks, kind: str, metric: str, c_values: Sequence[float], seed: int) -> float:
    chosen = np.random.default_rng(seed).random(len(rows)) < TEST_FRACTION
    usable = [
        column
        for column in marks.T
        if (column[chosen] > 0).any()
        and (column[~chosen] > 0).any()
        and (column[~chosen] < 0).any()
    ]
    if len(c_values) == 1 or not usable:
        return DEFAULT_C if DEFAULT_C in c_values else c_values[0]
    found = []
    for c in c_values:
        models = [_fit(rows[~chosen], column[~chosen], kind, c) for column in usable]
        found.append(
            np.mean(
                [
                    METRICS[metric](model.decision_function(rows[chosen]), column[chosen])
                    for model, column in zip(models, usable, strict=True)
                ]
            )
        )
    return c_values[int(np.argmax(found))]

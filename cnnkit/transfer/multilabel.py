"""Multi-label classification: one linear classifier per class, scored as PASCAL VOC does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelBinarizer, Normalizer
from sklearn.svm import LinearSVC

from cnnkit.data.dataset import TEST_FRACTION
from cnnkit.errors import DataError, UsageError, unknown_name
from cnnkit.transfer.linear_classifier import (
    C_VALUES,
    CLASSIFIERS,
    DEFAULT_C,
    check_c_values,
    check_features,
    project_to_row_space,
)

RECALL_STEPS = 10


def voc2010_average_precision(scores: ArrayLike, voc_labels: ArrayLike) -> float:
    """Return the area under the precision-recall curve, the definition since VOC2010.

    The precision at a recall is the largest precision at that recall or a higher one, so that the
    curve decreases monotonically. It is integrated exactly, over every step of the recall.

    Args:
        scores: (n,) float, higher for images that more probably have the class. Images of equal
            scores are counted classifier, so that their order does not matter.
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
    return _area(*_checked(scores, voc_labels, 1))


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
    return _eleven_point(*_checked(scores, voc_labels, 1))


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


def _checked(values: ArrayLike, voc_labels: ArrayLike, axes: int) -> tuple[np.ndarray, np.ndarray]:
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


@dataclass(frozen=True)
class MultiLabelScore:
    """Score of a layer's features on images that may have several classes.

    Attributes:
        layer: Name of the layer.
        classifier: `"svm"` or `"softmax"`.
        c: The chosen inverse regularization strength C, one for all classes.
        precisions: For each metric the average precision of each class, 0..1; NaN of a class that
            no test image has.
        training_images: Number of training images.
        test_images: Number of test images.
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
        """Return the mean average precision over the classes that the test images have."""
        return float(np.nanmean(self.precisions[metric]))


def score_multilabel(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    layer: str,
    classes: Sequence[str],
    *,
    classifier: str = "svm",
    metric: str = METRIC,
    l2: bool = True,
    seed: int = 0,
) -> MultiLabelScore:
    """Fit classifiers on training images and measure average precisions on test images.

    Args:
        train: (n, d), features of the training images.
        train_labels: (n, classes), 1, -1 or 0: see `cnnkit.data.sources.voc.MultiLabelDataset`.
        test: (m, d), features of the test images.
        test_labels: (m, classes).
        layer: Name of the layer, for the record.
        classes: Names of the classes.
        classifier: `"svm"`, or `"softmax"`, here a logistic regression for each class.
        metric: `"area"` or `"eleven-point"`, the metric that chooses C. Both are measured.
        l2: Whether vectors are divided by their Euclidean length.
        seed: Seed of the draw of the images that choose C.

    Raises:
        UsageError: If a classifier or a metric does not exist.
        DataError: If a class has no training images, or no test image has any class.
    """
    test, test_labels = _checked(check_features(test), test_labels, 2)
    pipeline, c = fit_multilabel(
        train, train_labels, classes, classifier, metric=metric, l2=l2, seed=seed
    )
    scores = pipeline.decision_function(test)
    return MultiLabelScore(
        layer,
        classifier,
        c,
        average_precisions(scores, test_labels),
        len(train),
        len(test),
        pipeline,
    )


def average_precisions(scores: np.ndarray, voc_labels: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return for each metric the average precision of each class.

    Args:
        scores: (n, classes) float.
        voc_labels: (n, classes), 1, -1 or 0.

    Raises:
        UsageError: If the labels are not 1, -1 and 0, or not one for each score.
        DataError: If no image has any class.
    """
    scores, voc_labels = _checked(scores, voc_labels, 2)
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


def fit_multilabel(
    values: np.ndarray,
    voc_labels: np.ndarray,
    classes: Sequence[str],
    kind: str = "svm",
    *,
    metric: str = METRIC,
    c_values: Sequence[float] = C_VALUES,
    l2: bool = True,
    seed: int = 0,
) -> tuple[Pipeline, float]:
    """Fit a linear classifier for each class against the rest, without its difficult images.

    One C for all classes is chosen on a random fifth of the images by mean average precision: a
    single class has too few images there.

    Args:
        values: (n, d) float, a feature vector for each image.
        voc_labels: (n, classes), 1, -1 or 0.
        classes: Names of the classes.
        kind: `"svm"` or `"softmax"`.
        metric: `"area"` or `"eleven-point"`, the metric that chooses C.
        c_values: Candidates of C; of equally good ones the first is chosen.
        l2: Whether vectors are divided by their Euclidean length first.
        seed: Seed of the draw of the held-out fifth.

    Returns:
        A fitted scikit-learn pipeline whose `decision_function` is (n, classes), and C.

    Raises:
        UsageError: If the kind or the metric does not exist, or there is only one class.
        DataError: If no image has a class, or all images have it.
    """
    if not isinstance(kind, str) or kind not in CLASSIFIERS:
        raise unknown_name("classifier", kind, CLASSIFIERS)
    if not isinstance(metric, str) or metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    check_c_values(c_values)
    values, voc_labels = _checked(check_features(values), voc_labels, 2)
    if len(classes) < 2:
        raise UsageError("`classes` must have at least two names", received=len(classes))
    if len(classes) != voc_labels.shape[1]:
        raise UsageError(
            "`classes` must hold a name for each column of `voc_labels`",
            expected=f"{voc_labels.shape[1]} names",
            received=len(classes),
        )
    for name, column in zip(classes, voc_labels.T, strict=True):
        if not ((column > 0).any() and (column < 0).any()):
            raise DataError(
                f"The class {name} cannot be learned",
                expected="training images with it and without it",
                received=f"{(column > 0).sum()} with and {(column < 0).sum()} without",
            )
    steps = [Normalizer().fit(values[:1])] if l2 else []
    rows = Normalizer().transform(values) if l2 else np.asarray(values)
    reduced, to_features = project_to_row_space(rows)
    c = _choose_c(reduced, voc_labels, kind, metric, c_values, seed)
    models = [_fit(reduced, column, kind, c) for column in voc_labels.T]
    for model in models:
        model.coef_ = to_features(model.coef_)
        model.n_features_in_ = values.shape[1]
    classifier = OneVsRestClassifier(CLASSIFIERS[kind](c))
    # The attributes that `fit` would set; `fit` cannot ignore different images for each class.
    classifier.estimators_ = models
    classifier.label_binarizer_ = LabelBinarizer(sparse_output=True).fit(
        (voc_labels > 0).astype(int)
    )
    classifier.n_features_in_ = values.shape[1]
    return make_pipeline(*steps, classifier), c


def _fit(
    rows: np.ndarray, column: np.ndarray, kind: str, c: float
) -> LinearSVC | LogisticRegression:
    counted = column != 0
    return CLASSIFIERS[kind](c).fit(rows[counted], column[counted] > 0)


def _choose_c(
    rows: np.ndarray,
    voc_labels: np.ndarray,
    kind: str,
    metric: str,
    c_values: Sequence[float],
    seed: int,
) -> float:
    held_out = np.random.default_rng(seed).random(len(rows)) < TEST_FRACTION
    usable = [
        column
        for column in voc_labels.T
        if (column[held_out] > 0).any()
        and (column[~held_out] > 0).any()
        and (column[~held_out] < 0).any()
    ]
    if len(c_values) == 1 or not usable:
        return DEFAULT_C if DEFAULT_C in c_values else c_values[0]
    precisions = []
    for c in c_values:
        models = [_fit(rows[~held_out], column[~held_out], kind, c) for column in usable]
        precisions.append(
            np.mean(
                [
                    METRICS[metric](model.decision_function(rows[held_out]), column[held_out])
                    for model, column in zip(models, usable, strict=True)
                ]
            )
        )
    return c_values[int(np.argmax(precisions))]

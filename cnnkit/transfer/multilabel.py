"""Multi-label classification: one linear classifier per class, scored as PASCAL VOC does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelBinarizer, Normalizer
from sklearn.svm import LinearSVC

from cnnkit.data.dataset import TEST_FRACTION
from cnnkit.errors import DataError, UsageError, unknown_name
from cnnkit.transfer.average_precision import (
    METRIC,
    METRICS,
    average_precisions,
    check_voc_labels,
)
from cnnkit.transfer.feature_rows import FeatureRows
from cnnkit.transfer.linear_classifier import (
    C_VALUES,
    CLASSIFIERS,
    DEFAULT_C,
    check_c_values,
    check_features,
    linear_svc,
)
from cnnkit.transfer.squared_hinge import SupportVectorMachines


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
    test, test_labels = check_voc_labels(check_features(test), test_labels, 2)
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
    values, voc_labels = check_voc_labels(check_features(values), voc_labels, 2)
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
    rows = FeatureRows(values, l2)
    held_out = np.random.default_rng(seed).random(len(values)) < TEST_FRACTION

    def choose_c(decide: Callable[[float], np.ndarray]) -> float:
        return _choose_c(decide, voc_labels, held_out, metric, c_values)

    models: Sequence[LinearSVC | LogisticRegression]
    if kind == "svm":
        machines = SupportVectorMachines(rows, np.sign(voc_labels.astype(float)), c_values)
        c = choose_c(lambda c: machines.held_out_scores(c, held_out))
        coefficients, intercepts = machines.fit(c, held_out)
        models = [
            linear_svc(c, np.array([False, True]), coefficients[[i]], intercepts[[i]])
            for i in range(len(classes))
        ]
    else:
        reduced, to_features = rows.coordinates()
        c = choose_c(lambda c: _held_out_scores(reduced, voc_labels, held_out, c))
        models = [_fit(reduced, column, c) for column in voc_labels.T]
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


def _fit(rows: np.ndarray, column: np.ndarray, c: float) -> LogisticRegression:
    counted = column != 0
    return CLASSIFIERS["softmax"](c).fit(rows[counted], column[counted] > 0)


def _held_out_scores(
    rows: np.ndarray, voc_labels: np.ndarray, held_out: np.ndarray, c: float
) -> np.ndarray:
    """Return the decision values of logistic regressions fitted to the other images."""
    scores = np.zeros((np.count_nonzero(held_out), voc_labels.shape[1]))
    for index in _usable(voc_labels, held_out):
        model = _fit(rows[~held_out], voc_labels[~held_out, index], c)
        scores[:, index] = model.decision_function(rows[held_out])
    return scores


def _usable(voc_labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return the indices of the classes that can be fitted and measured for the choice of C."""
    fitted = voc_labels[~held_out]
    with_and_without = (fitted > 0).any(0) & (fitted < 0).any(0)
    return np.flatnonzero((voc_labels[held_out] > 0).any(0) & with_and_without)


def _choose_c(
    decide: Callable[[float], np.ndarray],
    voc_labels: np.ndarray,
    held_out: np.ndarray,
    metric: str,
    c_values: Sequence[float],
) -> float:
    """Return the best C by the mean average precision of decision values of held-out images."""
    usable = _usable(voc_labels, held_out)
    if len(c_values) == 1 or not len(usable):
        return DEFAULT_C if DEFAULT_C in c_values else c_values[0]
    precisions = []
    for c in c_values:
        scores = decide(c)
        precisions.append(
            np.mean([METRICS[metric](scores[:, i], voc_labels[held_out][:, i]) for i in usable])
        )
    return c_values[int(np.argmax(precisions))]

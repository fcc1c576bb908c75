"""Linear classifiers on feature vectors, with regularization chosen on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC

from cnnkit.data.dataset import stratified_holdout
from cnnkit.errors import DataError, UsageError, unknown_name
from cnnkit.transfer.feature_rows import FeatureRows
from cnnkit.transfer.squared_hinge import SupportVectorMachines

# The papers name neither the kind of SVM nor the values of C. LinearSVC is one-vs-rest with the
# squared hinge loss. The attributes of a fit are set by `fit_linear_svc`, which solves for all
# classes at once.
CLASSIFIERS: dict[str, Callable[[float], LinearSVC | LogisticRegression]] = {
    "svm": lambda c: LinearSVC(C=c, dual=False),
    "softmax": lambda c: LogisticRegression(C=c, max_iter=2000),
}
C_VALUES = (0.1, 1.0, 10.0, 100.0)
# C where a class has too few images to choose it.
DEFAULT_C = 10.0


def fit_linear_classifier(
    values: ArrayLike,
    labels: ArrayLike,
    kind: str = "svm",
    *,
    c_values: Sequence[float] = C_VALUES,
    l2: bool = True,
    seed: int = 0,
) -> tuple[Pipeline, float]:
    """Fit a linear classifier; C is chosen on a fifth of the images by mean class recall.

    With more features than images the classifier is fitted in the space that the images span. A
    linear model with a squared penalty has the same solution there, and fitting takes less time.

    Args:
        values: (n, d) float, a feature vector for each image.
        labels: (n,) integers or names, as scikit-learn takes them, of at least two classes. The
            classes of the pipeline are in ascending order.
        kind: `"svm"` (linear, one-vs-rest) or `"softmax"` (multinomial logistic regression).
        c_values: Candidates of C; of equally good ones the first is chosen.
        l2: Whether vectors are divided by their Euclidean length first.
        seed: Seed of the draw of the held-out fifth.

    Returns:
        A fitted scikit-learn pipeline from (n, d) features to labels, and the chosen C.

    Raises:
        UsageError: If the kind does not exist, there is only one class, or the values, the labels
            or the candidates of C are of another shape or type.
        DataError: If all features are zero.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(40) % 2
        >>> values = np.random.default_rng(0).normal(size=(40, 9))
        >>> values[:, 0] += 8 * labels
        >>> pipeline, c = fit_linear_classifier(values, labels)
        >>> bool(pipeline.score(values, labels) > 0.9)
        True
        >>> names = np.array(["cat", "dog"])[labels]
        >>> [str(name) for name in fit_linear_classifier(values, names)[0].classes_]
        ['cat', 'dog']
    """
    if not isinstance(kind, str) or kind not in CLASSIFIERS:
        raise unknown_name("classifier", kind, CLASSIFIERS)
    check_c_values(c_values)
    values = check_features(values)
    labels = check_labels(labels, len(values))
    if not np.any(values):
        raise DataError(
            "`values` must hold a number other than zero: all features are zero",
            hint="Take a layer that fires, or check the weights",
        )
    if len(np.unique(labels)) < 2:
        raise UsageError("`labels` must have at least two classes", received=len(np.unique(labels)))
    # Normalizer has no state; `fit` records the number of features.
    steps = [Normalizer().fit(values[:1])] if l2 else []
    rows, classes = FeatureRows(values, l2), np.unique(labels)
    held_out = _held_out(labels, classes, seed) if len(c_values) > 1 else None

    def choose_c(predict: Callable[[float, np.ndarray], np.ndarray]) -> float:
        """Return the best C by the recalls of the labels that are predicted for held-out rows."""
        if held_out is None:
            return DEFAULT_C if DEFAULT_C in c_values else c_values[0]
        recalls = [class_recalls(labels[held_out], predict(c, held_out)).mean() for c in c_values]
        return c_values[int(np.argmax(recalls))]

    if kind == "svm":
        machines = SupportVectorMachines(rows, _targets(labels, classes), c_values)
        c = choose_c(lambda c, held: _predict(machines.held_out_scores(c, held), classes))
        model = linear_svc(c, classes, *machines.fit(c, held_out))
    else:
        reduced, to_features = rows.coordinates()
        c = choose_c(
            lambda c, held: (
                CLASSIFIERS[kind](c).fit(reduced[~held], labels[~held]).predict(reduced[held])
            )
        )
        model = CLASSIFIERS[kind](c).fit(reduced, labels)
        model.coef_ = to_features(model.coef_)
        model.n_features_in_ = values.shape[1]
    pipeline = make_pipeline(*steps, model)
    return pipeline, c


def check_features(values: ArrayLike) -> np.ndarray:
    """Return feature vectors as an array, (n, d), after checking its shape and its numbers.

    Raises:
        UsageError: If they are not finite numbers of that shape.
    """
    array = np.asarray(values)
    if array.ndim != 2 or not len(array) or array.dtype.kind not in "buif":
        raise UsageError(
            "`values` must be a feature vector for each image",
            expected="numbers of shape (n, d)",
            received=f"{array.dtype} of shape {array.shape}",
        )
    # The sum first: a test of every number takes an array of the same size.
    if not np.isfinite(array.sum(dtype=np.float64)) and not np.isfinite(array).all():
        raise UsageError("`values` must be finite", received="NaN or infinity")
    return array


def check_labels(labels: ArrayLike, count: int | None = None) -> np.ndarray:
    """Return labels of single classes as an array, (n,), of integers, booleans or texts.

    Args:
        labels: One label for each image, as scikit-learn takes them: a column is flattened, and
            whole numbers may be floats.
        count: Number of images; None takes the number of labels.

    Raises:
        UsageError: If there is not one label for each image, or they are of another kind.
    """
    try:
        array = np.asarray(labels)
    except ValueError as error:  # Lists of different lengths.
        raise UsageError("`labels` must be one label for each image", received=error) from error
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype == object and all(isinstance(label, str) for label in array.ravel()):
        array = array.astype(str)
    if array.ndim != 1 or count not in (None, len(array)):
        raise UsageError(
            "`labels` must be one label for each image",
            expected=f"shape ({'n' if count is None else count},)",
            received=array.shape,
            hint="`fit_multilabel` takes images of several classes" if array.ndim == 2 else None,
        )
    whole = array.dtype.kind == "f" and np.isfinite(array).all() and (array % 1 == 0).all()
    if array.dtype.kind not in "biuUS" and not whole:
        raise UsageError(
            "`labels` must be integers or texts", received=f"{array.dtype} {array[:3].tolist()}"
        )
    return array


def check_c_values(c_values: Sequence[float]) -> None:
    """Check the candidates of C.

    Raises:
        UsageError: If there is none, or one is not a finite number above 0.
    """
    array = np.asarray(c_values)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "uif":
        raise UsageError("`c_values` must be a list of numbers", received=repr(c_values))
    if not (np.isfinite(array) & (array > 0)).all():
        raise UsageError("`c_values` must be finite and above 0", received=repr(c_values))


def class_recalls(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the recall of each class in `labels`, (classes,), by ascending label."""
    return recall_score(labels, predicted, labels=np.unique(labels), average=None)


def linear_svc(
    c: float, classes: np.ndarray, coefficients: np.ndarray, intercepts: np.ndarray
) -> LinearSVC:
    """Return a `LinearSVC` with the attributes that `fit` would set.

    Args:
        c: Its C.
        classes: Labels of the classes in ascending order.
        coefficients: (k, d), one row for each class, or one for the second of two classes.
        intercepts: (k,).
    """
    model = CLASSIFIERS["svm"](c)
    model.classes_ = classes
    model.coef_, model.intercept_ = coefficients, intercepts
    model.n_features_in_ = coefficients.shape[1]
    return model


def _targets(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return 1 of the class and -1 of the others, (n, k); of two classes the second alone."""
    columns = classes[1:] if len(classes) == 2 else classes
    return np.where(labels[:, None] == columns, 1.0, -1.0)


def _predict(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the labels of decision values, as scikit-learn does."""
    chosen = scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)
    return classes[chosen]


def _held_out(labels: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray | None:
    """Return which images choose C, or None if those or the others would be too few."""
    # The value of a class seeds its draw; negative numbers and texts cannot.
    has_seeds = labels.dtype.kind in "biuf" and (labels >= 0).all()
    codes = labels if has_seeds else np.searchsorted(classes, labels)
    held_out = stratified_holdout(codes, seed)
    enough = held_out.any() and len(np.unique(labels[~held_out])) > 1
    return held_out if enough else None

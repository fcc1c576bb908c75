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

# The papers name neither the kind of SVM nor the values of C. LinearSVC is one-vs-rest with the
# squared hinge loss. Its primal solver takes no random numbers.
CLASSIFIERS: dict[str, Callable[[float], LinearSVC | LogisticRegression]] = {
    "svm": lambda c: LinearSVC(C=c, dual=False),
    "softmax": lambda c: LogisticRegression(C=c, max_iter=2000),
}
C_VALUES = (0.1, 1.0, 10.0, 100.0)
# C where a class has too few images to choose it.
DEFAULT_C = 10.0
# Number of feature columns that are converted to float64 at a time.
COLUMNS = 8192
# Variance, relative to the largest, below which a direction is dropped.
MIN_VARIANCE = 1e-12


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
    rows = Normalizer().transform(values) if l2 else np.asarray(values)
    reduced, to_features = project_to_row_space(rows)
    c = _choose_c(reduced, labels, kind, c_values, seed)
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


def project_to_row_space(rows: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Project vectors to an orthonormal basis of the space that they span.

    Args:
        rows: (n, d).

    Returns:
        (n, r) float64 with r at most n, with the same inner products; and the function that maps
        (m, r) coefficients in that basis to (m, d) coefficients of the features.
    """
    count, dimension = rows.shape
    if dimension <= count:
        return np.asarray(rows, np.float64), lambda coefficients: coefficients
    gram = np.zeros((count, count))
    for start in range(0, dimension, COLUMNS):
        block = np.asarray(rows[:, start : start + COLUMNS], np.float64)
        gram += block @ block.T
    variances, vectors = np.linalg.eigh(gram)
    kept = variances > MIN_VARIANCE * max(variances[-1], MIN_VARIANCE)
    roots, vectors = np.sqrt(variances[kept]), vectors[:, kept]

    def to_features(coefficients: np.ndarray) -> np.ndarray:
        mixing = (coefficients / roots) @ vectors.T
        return mixing @ rows

    return vectors * roots, to_features


def class_recalls(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the recall of each class in `labels`, (classes,), by ascending label."""
    return recall_score(labels, predicted, labels=np.unique(labels), average=None)


def _choose_c(
    rows: np.ndarray, labels: np.ndarray, kind: str, c_values: Sequence[float], seed: int
) -> float:
    # The value of a class seeds its draw; negative numbers and texts cannot.
    has_seeds = labels.dtype.kind in "biuf" and (labels >= 0).all()
    codes = labels if has_seeds else np.unique(labels, return_inverse=True)[1]
    held_out = stratified_holdout(codes, seed)
    if len(c_values) == 1:
        return c_values[0]
    if not held_out.any() or len(np.unique(labels[~held_out])) < 2:
        return DEFAULT_C if DEFAULT_C in c_values else c_values[0]
    recalls = []
    for c in c_values:
        model = CLASSIFIERS[kind](c).fit(rows[~held_out], labels[~held_out])
        recalls.append(class_recalls(labels[held_out], model.predict(rows[held_out])).mean())
    return c_values[int(np.argmax(recalls))]

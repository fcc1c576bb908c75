"""Linear classifiers on features, whose regularization a fifth of the training images chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC

from cnnkit.data.dataset import stratified_holdout
from cnnkit.errors import UsageError, unknown_name

# One-vs-rest, squared hinge; the papers name neither the kind nor the values tried. The primal
# solvers take no random numbers.
KINDS: dict[str, Callable] = {
    "svm": lambda c: LinearSVC(C=c, dual=False),
    "softmax": lambda c: LogisticRegression(C=c, max_iter=2000),
}
C_VALUES = (0.1, 1.0, 10.0, 100.0)
# Where a class has too few images to choose with.
DEFAULT_C = 10.0
# Columns of the features that are in memory as float64.
COLUMNS = 8192
SMALLEST = 1e-12


def fit_linear_classifier(
    values: np.ndarray,
    labels: np.ndarray,
    kind: str = "svm",
    *,
    c_values: Sequence[float] = C_VALUES,
    l2: bool = True,
    seed: int = 0,
) -> tuple[Pipeline, float]:
    """Fits a linear classifier; C is chosen on a fifth of the images by mean class recall.

    With more features than images the work is done in the space that the images span, where a
    linear model with a squared penalty has the same solution: exact, and the faster the more
    features there are.

    Args:
        values: (n, d) float, a feature vector for each image.
        labels: (n,) int, at least two classes.
        kind: `"svm"` (linear, one against the rest) or `"softmax"` (multinomial logistic).
        c_values: Candidates; of equally good ones the first is taken.
        l2: Whether vectors get the length 1 first.
        seed: Of the choice of the fifth.

    Returns:
        A fitted scikit-learn pipeline over (n, d), and the chosen C.

    Raises:
        UsageError: If there is no such kind, or only one class.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(40) % 2
        >>> values = np.random.default_rng(0).normal(size=(40, 9))
        >>> values[:, 0] += 8 * labels
        >>> pipeline, c = fit_linear_classifier(values, labels)
        >>> bool(pipeline.score(values, labels) > 0.9)
        True
    """
    if kind not in KINDS:
        raise unknown_name("classifier", kind, KINDS)
    if len(np.unique(labels)) < 2:
        raise UsageError("A classifier tells classes apart", expected="at least two", received=1)
    # It has no state; fitted, it knows the number of features.
    steps = [Normalizer().fit(values[:1])] if l2 else []
    rows = Normalizer().transform(values) if l2 else np.asarray(values)
    reduced, back = project_to_row_space(rows)
    c = _choose(reduced, labels, kind, c_values, seed)
    model = KINDS[kind](c).fit(reduced, labels)
    model.coef_ = back(model.coef_)
    model.n_features_in_ = values.shape[1]
    pipeline = make_pipeline(*steps, model)
    return pipeline, c


def project_to_row_space(rows: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Returns the same vectors in an orthonormal basis of what they span, and the way back.

    Args:
        rows: (n, d).

    Returns:
        (n, r) float64 with r at most n, with the same inner products; and the function from
        (m, r) coefficients over that basis to (m, d) coefficients over the features.
    """
    count, dimension = rows.shape
    if dimension <= count:
        return np.asarray(rows, np.float64), lambda coefficients: coefficients
    gram = np.zeros((count, count))
    for start in range(0, dimension, COLUMNS):
        block = np.asarray(rows[:, start : start + COLUMNS], np.float64)
        gram += block @ block.T
    variances, vectors = np.linalg.eigh(gram)
    kept = variances > SMALLEST * max(variances[-1], SMALLEST)
    roots, vectors = np.sqrt(variances[kept]), vectors[:, kept]

    def back(coefficients: np.ndarray) -> np.ndarray:
        mixing = (coefficients / roots) @ vectors.T
        return mixing @ rows

    return vectors * roots, back


def class_recalls(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns the part of each class's images that are found, (classes,), by ascending label.

    Example:
        >>> import numpy as np
        >>> class_recalls(np.array([0, 0, 1]), np.array([0, 1, 1]))
        array([0.5, 1. ])
    """
    right = labels == predicted
    return np.array([right[labels == label].mean() for label in np.unique(labels)])


def _choose(rows, labels, kind: str, c_values: Sequence[float], seed: int) -> float:
    chosen = stratified_holdout(labels, seed)
    if len(c_values) == 1:
        return c_values[0]
    if not chosen.any() or len(np.unique(labels[~chosen])) < 2:
        return DEFAULT_C if DEFAULT_C in c_values else c_values[0]
    recalls = []
    for c in c_values:
        model = KINDS[kind](c).fit(rows[~chosen], labels[~chosen])
        recalls.append(class_recalls(labels[chosen], model.predict(rows[chosen])).mean())
    return c_values[int(np.argmax(recalls))]

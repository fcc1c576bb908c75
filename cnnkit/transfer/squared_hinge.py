"""Linear support vector machines of many classes at once, with the squared hinge loss.

For each column of targets y in {-1, 0, 1} the minimum of

    |w|^2 / 2 + C * sum of max(0, 1 - y * (w . x))^2 over the rows x with y other than 0

is found, where x ends with a feature of 1, whose weight is the intercept. This is the problem of
scikit-learn's `LinearSVC` with its defaults, one column for each class against the rest. liblinear
solves one class after the other; here all classes are columns of the same matrix products.

The method is Newton's, with conjugate gradients and an exact line search (Keerthi & DeCoste 2005;
Chapelle 2007). The Hessian of a class is I + 2C * sum of x x^T over the rows within its margin.
The classes differ in these rows only, so one inverse, of the Hessian with all rows, preconditions
the gradients of all classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from cnnkit.transfer.blas_threads import blas_threads, map_in_threads
from cnnkit.transfer.feature_rows import FeatureRows

# A class is done when the minimum is known to be at most this part below its objective.
RELATIVE_GAP = 1e-8
NEWTON_STEPS = 100
# Part from which a class that is not done by then is reported; liblinear stops near it.
REPORTED_GAP = 1e-4
# A step is solved until the preconditioned residual is this part of the gradient.
RESIDUAL = 0.1
CONJUGATE_STEPS = 100
# Largest C times the squared length of a vector with its 1 for which all classes are fitted
# together.
RANGE = 2e3
# The line search ends when the slope is this part of the slope at its start.
SLOPE = 1e-3
LINE_STEPS = 30
# Classes of a thread, at least.
MIN_CLASSES = 4
# Difference of the preconditioner from the identity from which it is float32.
MIN_DIFFERENCE = 0.01


@dataclass(frozen=True)
class TrainingRows:
    """Feature vectors with a last feature of 1: themselves, or their inner products.

    Weights are kept as vectors of numbers, one column for each class. With features these are the
    weights themselves, (d + 1, k); with inner products they are coefficients of the rows, (n, k),
    and the weights are the sum of the rows times the coefficients.

    Attributes:
        matrix: (n, d + 1) features, or (n, n) inner products; float64.
        is_gram: Whether the matrix holds inner products.
        to_features: Function that maps coefficients of the matrix's features to those of the
            features that were given.
    """

    matrix: np.ndarray
    is_gram: bool
    to_features: Callable[[np.ndarray], np.ndarray] = lambda coefficients: coefficients

    def __len__(self) -> int:
        return len(self.matrix)

    def select(self, chosen: np.ndarray) -> TrainingRows:
        """Return some of the rows, which a mask chooses."""
        columns = chosen if self.is_gram else np.full(self.matrix.shape[1], True)
        return TrainingRows(self.matrix[np.ix_(chosen, columns)], self.is_gram)

    def decide(self, chosen: np.ndarray, fitted: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the decision values of some rows, by weights that were fitted on others."""
        matrix = self.matrix[chosen]
        return (matrix[:, fitted] if self.is_gram else matrix) @ weights

    def sum_rows(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the sum of the rows, times coefficients (n, k), as weights."""
        return coefficients if self.is_gram else self.matrix.T @ coefficients

    def inner(self, one: np.ndarray, other: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """Return the inner products of weights, (k,), from the decision values of the second."""
        return np.einsum("ij,ij->j", one, decided if self.is_gram else other)

    def preconditioner(self, c: float) -> np.ndarray:
        """Return the inverse of I + 2C * M, where M is the sum of x x^T, or the Gram matrix.

        This is the Hessian with all rows within the margin, so that no other is above it; with a
        smaller weight of the rows, conjugate gradients were unstable. It is float32, in which
        products take half the time, where it differs enough from the identity for that.
        """
        matrix = self.matrix if self.is_gram else self.matrix.T @ self.matrix
        scale = 2 * c
        system = scale * matrix
        system[np.diag_indices_from(system)] += 1
        factor, _ = lapack.dpotrf(system.T, lower=1, overwrite_a=1)
        inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
        lower = np.tril(inverse, -1)
        full = lower + lower.T + np.diag(np.diag(inverse))
        differs = scale * matrix.trace() / len(matrix) > MIN_DIFFERENCE
        return full.astype(np.float32) if self.is_gram and differs else full


class SupportVectorMachines:
    """Support vector machines of many classes on the same features, for several values of C.

    With long vectors or a large C, `RANGE`, rounding errors would matter, and many steps would be
    needed: then liblinear fits one class after the other.

    Args:
        features: The training features.
        targets: (n, k) of 1 (of the class), -1 (not) and 0 (the row does not count).
        c_values: The values of C that will be asked for.
    """

    def __init__(
        self, features: FeatureRows, targets: np.ndarray, c_values: Sequence[float]
    ) -> None:
        self.features, self.targets = features, np.asarray(targets, np.float64)
        self.c_values = c_values
        is_together = max(c_values) * (features.largest_square() + 1) <= RANGE
        self._fit = fit_squared_hinge if is_together else _fit_one_by_one
        count, dimension = features.shape
        # Inner products need one matrix product a step; features need two, of another size.
        self.rows = (
            _inner_products(features)
            if is_together and 2 * dimension >= count
            else _coordinates(features)
        )
        self._part: TrainingRows | None = None
        self._weights: dict[float, np.ndarray] = {}
        self._inverses: dict[float, np.ndarray] = {}

    def held_out_scores(self, c: float, held_out: np.ndarray) -> np.ndarray:
        """Return the decision values of held-out rows, (m, k), of a fit to the others.

        Args:
            c: The weight of the loss. The fit starts from that of the call before.
            held_out: (n,) bool, the same in every call.
        """
        if self._part is None:
            self._part = self.rows.select(~held_out)
            if self._fit is fit_squared_hinge:
                workers = min(blas_threads(), len(self.c_values))
                inverses = map_in_threads(self._part.preconditioner, self.c_values, workers)
                self._inverses = dict(zip(self.c_values, inverses, strict=True))
        start = next(reversed(self._weights.values()), None)
        inverse = self._inverses.pop(c, None)
        weights = self._fit(self._part, self.targets[~held_out], c, start, inverse)
        self._weights[c] = weights
        return self.rows.decide(held_out, ~held_out, weights)

    def fit(self, c: float, held_out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients of the features, (k, d), and intercepts, (k,), fitted to all rows.

        Args:
            c: The weight of the loss.
            held_out: The held-out rows, if there were any.
        """
        self._part, start = None, self._weights.get(c)
        if start is not None and held_out is not None and self.rows.is_gram:
            start = np.zeros_like(self.targets)
            start[~held_out] = self._weights[c]
        weights = self._fit(self.rows, self.targets, c, start)
        if self.rows.is_gram:
            return self.features.combine(weights), weights.sum(0)
        return self.rows.to_features(weights[:-1].T), weights[-1]


def _inner_products(features: FeatureRows) -> TrainingRows:
    # Features that were computed in float32 are multiplied in it, by blocks of columns.
    single = features.values.dtype == np.float32
    gram = features.gram(np.float32 if single else np.float64)
    gram += 1
    return TrainingRows(gram, is_gram=True)


def _coordinates(features: FeatureRows) -> TrainingRows:
    coordinates, to_features = features.coordinates()
    ones = np.ones((len(coordinates), 1))
    return TrainingRows(np.hstack([coordinates, ones]), is_gram=False, to_features=to_features)


def _fit_one_by_one(
    rows: TrainingRows,
    targets: np.ndarray,
    c: float,
    start: np.ndarray | None = None,
    inverse: np.ndarray | None = None,
) -> np.ndarray:
    """Fit the weights of one class after the other with liblinear; see `fit_squared_hinge`."""
    del start, inverse
    weights = np.zeros((rows.matrix.shape[1], targets.shape[1]))
    for column, of_class in enumerate(targets.T):
        counted = of_class != 0
        if len(np.unique(of_class[counted])) == 2:
            model = LinearSVC(C=c, dual=False).fit(rows.matrix[counted, :-1], of_class[counted])
            weights[:, column] = np.append(model.coef_, model.intercept_)
    return weights


def fit_squared_hinge(
    rows: TrainingRows,
    targets: np.ndarray,
    c: float,
    start: np.ndarray | None = None,
    inverse: np.ndarray | None = None,
) -> np.ndarray:
    """Fit the weights of all classes.

    Args:
        rows: The training rows.
        targets: (n, k) of 1 (of the class), -1 (not) and 0 (the row does not count).
        c: Weight of the loss, C.
        start: Weights from which to start, such as those of another C.
        inverse: The preconditioner for C; None computes it.

    Returns:
        Weights of each class in its column.

    Warns:
        ConvergenceWarning: If a class was not solved within `NEWTON_STEPS`.
    """
    targets = np.asarray(targets, np.float64)
    classes = targets.shape[1]
    size = len(rows) if rows.is_gram else rows.matrix.shape[1]
    weights = np.zeros((size, classes)) if start is None else start
    decided = rows.matrix @ weights
    if inverse is None:
        [inverse] = map_in_threads(rows.preconditioner, [c], 1)
    workers = min(blas_threads(), -(-classes // MIN_CLASSES))
    solved = map_in_threads(
        lambda group: _solve(
            rows, targets[:, group], c, weights[:, group], decided[:, group], inverse
        ),
        np.array_split(np.arange(classes), workers),
        workers,
    )
    if missed := sum(missed for _, missed in solved):
        warnings.warn(
            f"{missed} of {classes} support vector machines with C = {c:g} did not converge; "
            "features of about unit length are easier",
            ConvergenceWarning,
            stacklevel=2,
        )
    return np.hstack([result for result, _ in solved])


def _solve(
    rows: TrainingRows,
    targets: np.ndarray,
    c: float,
    weights: np.ndarray,
    decided: np.ndarray,
    inverse: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Take Newton's steps for some classes.

    Args:
        rows: The training rows.
        targets: (n, k) of 1, -1 and 0.
        c: Weight of the loss.
        weights: Weights from which to start.
        decided: Their decision values, (n, k).
        inverse: The preconditioner.

    Returns:
        The weights, and the number of classes that did not converge.
    """
    result, active = weights.copy(), np.arange(targets.shape[1])
    for step in range(NEWTON_STEPS + 1):
        slack = np.maximum(0, targets * (targets - decided))
        losses = 2 * c * slack * targets
        negative = weights - rows.sum_rows(losses)
        moved = decided - rows.matrix @ losses if rows.is_gram else negative
        # The dual problem, at the losses, is below the objective by half the squared gradient.
        gap = rows.inner(negative, negative, moved) / 2
        objective = rows.inner(weights, weights, decided) / 2 + c * (slack**2).sum(0)
        open_ = gap > RELATIVE_GAP * objective
        result[:, active] = weights
        if not open_.any() or step == NEWTON_STEPS:
            break
        active = active[open_]
        weights, decided, targets, negative, slack = (
            one[:, open_] for one in (weights, decided, targets, negative, slack)
        )
        within = np.where(slack > 0, 2 * c, 0.0)
        direction = _newton_direction(rows, -negative, within, inverse, float(2 * c))
        along = rows.matrix @ direction
        length = _line_search(rows, targets, c, weights, decided, direction, along)
        weights = weights + length * direction
        decided = decided + length * along
    return result, int(np.count_nonzero(gap > REPORTED_GAP * objective))


def _newton_direction(
    rows: TrainingRows, residual: np.ndarray, within: np.ndarray, inverse: np.ndarray, scale: float
) -> np.ndarray:
    """Solve for the steps of all classes by preconditioned conjugate gradients, roughly.

    Args:
        rows: The training rows.
        residual: The negative gradients, as weights.
        within: (n, k), 2C where a row is within the margin of a class, else 0.
        inverse: The preconditioner.
        scale: Its scale.

    Returns:
        The steps, as weights.
    """
    residual, within = (one.astype(inverse.dtype, copy=False) for one in (residual, within))
    direction, search, decided = np.zeros_like(residual), np.empty(0), np.empty(0)
    size = limit = np.empty(0)
    for step in range(CONJUGATE_STEPS):
        guess = inverse @ residual
        # (I + scale * K) guess = residual gives the product of K and the guess.
        guessed = (residual - guess) / scale if rows.is_gram else rows.matrix @ guess
        last, size = size, rows.inner(residual, guess, guessed)
        if not step:
            limit = RESIDUAL**2 * size
            search, decided = guess, guessed
        else:
            ratio = _divide(size, last)
            search = guess + ratio * search
            decided = guessed + ratio * decided
        if (size <= limit).all():
            break
        losses = within * decided
        curvature = rows.inner(search, search, decided) + np.einsum("ij,ij->j", losses, decided)
        length = _divide(size, curvature)
        direction += length * search
        residual = residual - length * (search + rows.sum_rows(losses))
    return direction.astype(np.float64, copy=False)


def _line_search(
    rows: TrainingRows,
    targets: np.ndarray,
    c: float,
    weights: np.ndarray,
    decided: np.ndarray,
    direction: np.ndarray,
    along: np.ndarray,
) -> np.ndarray:
    """Return how far to go along the directions, (k,): to where the slopes are about 0.

    The objective along a line is convex, and its slope is piecewise linear: Newton's method on the
    slope, within the bracket that is known.
    """
    linear, square = (
        rows.inner(direction, weights, decided),
        rows.inner(direction, direction, along),
    )
    low, high = np.zeros_like(linear), np.full_like(linear, np.inf)
    length = np.ones_like(linear)
    toward = targets * along
    start = targets * (targets - decided)
    limit = SLOPE * np.abs(linear - 2 * c * np.einsum("ij,ij->j", np.maximum(0, start), toward))
    for _ in range(LINE_STEPS):
        slack = start - length * toward
        np.maximum(slack, 0, out=slack)
        slope = linear + length * square - 2 * c * np.einsum("ij,ij->j", slack, toward)
        if (np.abs(slope) <= limit).all():
            break
        curvature = square + 2 * c * np.einsum("ij,ij,ij->j", slack > 0, toward, toward)
        low, high = np.where(slope < 0, length, low), np.where(slope < 0, high, length)
        proposed = length - _divide(slope, curvature)
        middle = np.where(np.isinf(high), 2 * length, (low + high) / 2)
        length = np.where((proposed > low) & (proposed < high), proposed, middle)
    return length


def _divide(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the quotients, and 0 where the divisor is not above 0."""
    return np.divide(one, other, out=np.zeros_like(one), where=other > 0)

"""Feature vectors of images as rows: their lengths, inner products and the space they span."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import DTypeLike
from scipy.linalg import lapack, solve_triangular

from cnnkit.transfer.blas_threads import blas_threads, map_in_threads

Result = TypeVar("Result")
# Number of feature columns that are converted and multiplied at a time.
COLUMNS = 2048
# Squared distance of a vector from the span of others, relative to the largest squared length,
# from which it adds a direction.
MIN_DISTANCE = 1e-12


class FeatureRows:
    """Feature vectors, which are divided by their Euclidean length where asked.

    They are read in blocks of columns, so that no second array of their size is needed.

    Args:
        values: (n, d) numbers.
        l2: Whether vectors are divided by their length; a vector of zeros stays as it is.

    Attributes:
        values: The vectors as they were given.
        lengths: (n, 1) float64, what they are divided by.
    """

    def __init__(self, values: np.ndarray, l2: bool) -> None:
        self.values, self.lengths = values, np.ones((len(values), 1))
        self._starts = range(0, values.shape[1], COLUMNS)
        self._squares = np.sum(
            list(self._map_blocks(lambda columns: (self._block(columns) ** 2).sum(1))), axis=0
        )
        if l2:
            positive = self._squares > 0
            self.lengths[positive, 0] = np.sqrt(self._squares[positive])
            self._squares = positive.astype(np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of vectors and of features."""
        count, dimension = self.values.shape
        return count, dimension

    def largest_square(self) -> float:
        """Return the largest squared length of a vector."""
        return float(self._squares.max())

    def _block(self, columns: slice, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Return a block of columns, (n, b)."""
        return self.values[:, columns].astype(dtype) / self.lengths.astype(dtype)

    def _map_blocks(self, function: Callable[[slice], Result]) -> Iterator[Result]:
        """Yield the results of a function of all columns in their order, in blocks, by threads."""
        blocks = [slice(start, start + COLUMNS) for start in self._starts]
        workers = min(blas_threads(), len(blocks))
        for first in range(0, len(blocks), workers):
            yield from map_in_threads(function, blocks[first : first + workers], workers)

    def gram(self, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Return the inner products of all pairs, (n, n) float64.

        Args:
            dtype: Type of the products within a block of columns; the blocks are added in float64,
                in their order, so that the sum is the same in every run.
        """
        products = np.zeros((len(self.values), len(self.values)))

        def multiply(columns: slice) -> np.ndarray:
            block = self._block(columns, dtype)
            return np.asarray(block @ block.T)

        for product in self._map_blocks(multiply):
            products += product
        return products

    def combine(self, coefficients: np.ndarray) -> np.ndarray:
        """Return sums of the vectors times coefficients, (n, k), as (k, d) float64."""
        sums = np.empty((coefficients.shape[1], self.shape[1]))

        def fill(columns: slice) -> None:
            sums[:, columns] = coefficients.T @ self._block(columns)

        list(self._map_blocks(fill))
        return sums

    def coordinates(self) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Return the vectors in an orthonormal basis of the space that they span.

        A linear model with a squared penalty has the same solution there. The basis is that of the
        Gram-Schmidt method, by a Cholesky factorization of the inner products with pivots.

        Returns:
            (n, r) float64 with r at most n, with the same inner products; and the function that
            maps (m, r) coefficients in that basis to (m, d) coefficients of the features.
        """
        count, dimension = self.shape
        if dimension <= count:
            return self.values / self.lengths, lambda coefficients: coefficients
        gram = self.gram()
        least = MIN_DISTANCE * max(gram.diagonal().max(), MIN_DISTANCE)
        factor, pivots, rank, _ = lapack.dpstrf(gram.T, tol=least, lower=1, overwrite_a=1)
        order, basis = pivots - 1, np.tril(factor[:, :rank])
        coordinates = np.empty_like(basis)
        coordinates[order] = basis

        def to_features(coefficients: np.ndarray) -> np.ndarray:
            of_rows = np.zeros((count, len(coefficients)))
            of_rows[order[:rank]] = solve_triangular(
                basis[:rank], coefficients.T, trans="T", lower=True
            )
            return self.combine(of_rows)

        return coordinates, to_features

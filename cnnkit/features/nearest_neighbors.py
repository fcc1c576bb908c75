"""Exact nearest neighbors of images by feature vectors (Krizhevsky et al. 2012, Fig. 4).

The vectors may be larger than the memory: they are read in blocks of at most `BLOCK_BYTES`, and
`memory_estimate` gives the bound beforehand. scikit-learn's `NearestNeighbors` is not used, because
it copies the searched vectors into memory, and its float32 distances do not order near-equal
vectors exactly. Here, a float32 product selects candidates with a bound on its rounding, and their
distances are computed in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cnnkit.errors import DataError, UsageError
from cnnkit.features.extract import BATCH_SIZE, stream_features
from cnnkit.features.extractor import FeatureExtractor
from cnnkit.features.image_batches import split_from_files
from cnnkit.features.index import read_index
from cnnkit.features.store import iter_parts

# Memory of a block of vectors and its distances to the queries, at most.
BLOCK_BYTES = 64 << 20
# Relative rounding of float32: see `_rounding_bound`.
EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class NearestIndices:
    """Indices and distances of the k nearest vectors of every query, in ascending distance.

    Vectors at equal distance are in the order of their indices.

    Attributes:
        indices: (queries, k) int64, indices into the searched vectors.
        distances: (queries, k) float64, Euclidean.
    """

    indices: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory and input of a nearest-neighbor search.

    Attributes:
        rows: Number of vectors in a block.
        blocks: Number of blocks.
        block_bytes: Memory of a block and its distances, besides the memory-mapped file.
        state_bytes: Memory of the queries and their nearest vectors.
        read_bytes: Bytes of the features, which are read once.
    """

    rows: int
    blocks: int
    block_bytes: int
    state_bytes: int
    read_bytes: int


def memory_estimate(images: int, dimension: int, queries: int = 1, k: int = 6) -> MemoryEstimate:
    """Estimate the memory of `nearest_neighbors` before it runs.

    Args:
        images: Number of searched vectors.
        dimension: Length of a vector.
        queries: Number of queries.
        k: Number of neighbors of each query.

    Example:
        >>> from cnnkit.features import memory_estimate
        >>> million = memory_estimate(1_000_000, 4096, queries=100)
        >>> million.read_bytes, million.block_bytes < 2**28
        (16384000000, True)
    """
    # A row takes its own values, and its distances to the queries in float32 and float64.
    row_bytes = 4 * dimension + 12 * queries
    rows = int(min(max(1, BLOCK_BYTES // row_bytes), max(images, 1)))
    return MemoryEstimate(
        rows=rows,
        blocks=-(-images // rows),
        block_bytes=rows * row_bytes,
        state_bytes=queries * (12 * dimension + 16 * k),
        read_bytes=4 * images * dimension,
    )


def nearest_neighbors(
    queries: np.ndarray, parts: np.ndarray | Iterable[np.ndarray], k: int = 6
) -> NearestIndices:
    """Find the k nearest vectors of each query by Euclidean distance, exactly.

    The vectors are searched block by block: a float32 matrix product gives the distances to within
    a bound on its rounding, and only vectors that may be among the nearest are measured again in
    float64. The whole matrix of distances is never in memory, and the vectors may be larger than
    the memory.

    Args:
        queries: (q, d) float.
        parts: (n, d) float32, or an iterable of such arrays, which may be memory-mapped.
        k: Number of neighbors.

    Returns:
        Indices and distances, (q, k); fewer than k columns where there are fewer vectors.

    Raises:
        UsageError: If k is below 1, or the lengths of the vectors differ.
        DataError: If there are no vectors, or one is not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit.features import nearest_neighbors
        >>> nearest_neighbors(np.array([[0.0]]), np.array([[3.0], [-1.0], [2.0]]), k=2).indices
        array([[1, 2]])
    """
    if k < 1:
        raise UsageError("`k` must be at least 1", received=k)
    queries = np.asarray(queries, np.float64)
    if not np.isfinite(queries).all():
        raise DataError("The features in `queries` must be finite")
    queries32 = queries.astype(np.float32)
    norms = np.linalg.norm(queries, axis=1)
    nearest = [(np.zeros(0, np.int64), np.zeros(0)) for _ in queries]
    start = 0
    for part in [parts] if isinstance(parts, np.ndarray) else parts:
        if part.shape[1] != queries.shape[1]:
            raise UsageError(
                "`queries` must have vectors of the same length as the features",
                expected=f"{part.shape[1]} values",
                received=queries.shape[1],
            )
        rows = memory_estimate(len(part), part.shape[1], len(queries), k).rows
        for begin in range(0, len(part), rows):
            block = np.asarray(part[begin : begin + rows], np.float32)
            squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)
            if not np.isfinite(squares).all():
                row = start + begin + int(np.flatnonzero(~np.isfinite(squares))[0])
                raise DataError(f"The features of image {row} are not finite")
            products = queries32 @ block.T
            for i, query in enumerate(queries):
                approximate = norms[i] ** 2 + squares - 2 * products[i].astype(np.float64)
                bound = _rounding_bound(norms[i], np.sqrt(squares), block.shape[1])
                near = _candidates(approximate, bound, nearest[i][1], k)
                exact = np.linalg.norm(block[near].astype(np.float64) - query, axis=1)
                nearest[i] = _merge_nearest(nearest[i], (start + begin + near, exact), k)
        start += len(part)
    if not start:
        raise DataError("`parts` must hold at least one vector: there are no features to search")
    return NearestIndices(
        np.stack([indices for indices, _ in nearest]),
        np.stack([distances for _, distances in nearest]),
    )


@dataclass(frozen=True)
class Neighbor:
    """A neighbor of an image.

    Attributes:
        index: Index among the features.
        name: Name of the image.
        label: Name of its class.
        distance: Euclidean distance of the feature vectors.
    """

    index: int
    name: str
    label: str
    distance: float


def find_neighbors(
    model: keras.Model, files: Sequence[str | Path], features: str | Path, k: int = 6
) -> list[list[Neighbor]]:
    """Find the images in a feature store that are nearest to image files.

    Args:
        model: The network that made the features.
        files: Image files.
        features: Folder written by `cnnkit features`; its spec and its decoding are applied to the
            files.
        k: Number of neighbors of each file; Krizhevsky et al. show six.

    Returns:
        For every file its neighbors, in ascending distance.

    Raises:
        UsageError: If the features are of another network, or a file does not exist.
        DataError: If features are missing or damaged, or a file is not an image.

    Example:
        >>> from cnnkit import load_model
        >>> from cnnkit.features import find_neighbors
        >>> find_neighbors(load_model("runs/demo"), ["digit.png"], "features")  # doctest: +SKIP
        [[Neighbor(index=17, name='digit0021', label='5', distance=0.41), ...]]
    """
    split = split_from_files(files)
    index = read_index(features)
    split = split.decoded(index.decoding)
    extractor = FeatureExtractor(model, index.spec)
    if extractor.identity != index.identity:
        raise UsageError(
            f"{features} holds features of another network",
            expected=f"those of {model.name}, {extractor.identity[:12]}",
            received=f"{index.network}, {index.identity[:12]}",
            hint="Write the features of this network, or name the one that made them",
        )
    if extractor.dimensions != (index.dimension,):
        raise DataError(
            f"{features} states another dimension than its network has",
            expected=extractor.dimensions[0],
            received=index.dimension,
        )
    queries = np.empty((len(split), index.dimension), np.float32)
    for rows, [vectors] in stream_features(extractor, split, np.arange(len(split)), BATCH_SIZE):
        queries[rows] = vectors
    found = nearest_neighbors(queries, (part.values for part in iter_parts(features, index)), k)
    names, labels = zip(
        *((part.names, part.labels) for part in iter_parts(features, index)), strict=True
    )
    names, labels = sum(names, ()), np.concatenate(labels)
    return [
        [
            Neighbor(int(i), names[i], index.classes[labels[i]], float(d))
            for i, d in zip(indices, distances, strict=True)
        ]
        for indices, distances in zip(found.indices, found.distances, strict=True)
    ]


def _rounding_bound(query_norm: float, norms: np.ndarray, dimension: int) -> np.ndarray:
    """Return the largest rounding error of squared distances from the float32 product, (rows,)."""
    # A sum of products is off by at most d eps |q| |x|. The product counts twice in the squared
    # distance, and the query was rounded to float32 once.
    return 3 * dimension * EPSILON * query_norm * norms


def _candidates(
    approximate: np.ndarray, bound: np.ndarray, nearest: np.ndarray, k: int
) -> np.ndarray:
    """Return the rows that may be among the k nearest.

    Args:
        approximate: (rows,) squared distances.
        bound: (rows,) their largest rounding errors.
        nearest: Ascending distances of the nearest vectors of earlier blocks, at most k.
        k: Number of neighbors.
    """
    upper = approximate + bound
    limit = np.partition(upper, k - 1)[k - 1] if len(upper) > k else np.inf
    if len(nearest) == k:
        limit = min(limit, nearest[-1] ** 2)
    return np.flatnonzero(approximate - bound <= limit)


def _merge_nearest(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of two pairs of indices and distances."""
    indices, distances = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    order = np.lexsort((indices, distances))[:k]
    return indices[order], distances[order]

"""The nearest images of an image by the features of a network (Krizhevsky et al. 2012, Fig. 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cnnkit.errors import DataError, UsageError
from cnnkit.features import (
    FeatureExtractor,
    iter_parts,
    read_index,
    split_from_files,
    stream_features,
)

# What a block of the features, its answers and the copies of its nearest rows take at most.
BLOCK_BYTES = 64 << 20
BATCH_SIZE = 32
# Rounding of a float32 product, by entry: see `_rounding`.
EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class NearestIndices:
    """The k nearest vectors of every query, nearest first; of equally near ones the earlier first.

    Attributes:
        index: (queries, k) int64, places in the searched vectors.
        distance: (queries, k) float64, Euclidean.
    """

    index: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class MemoryEstimate:
    """What a search takes.

    Attributes:
        rows: Vectors in a block.
        blocks: Number of blocks.
        block_bytes: Memory of a block and what is computed of it, beside the mapped file.
        state_bytes: Memory of the queries and of their nearest ones.
        read_bytes: What is read of the features, once.
    """

    rows: int
    blocks: int
    block_bytes: int
    state_bytes: int
    read_bytes: int


def memory_estimate(images: int, dimension: int, queries: int = 1, k: int = 6) -> MemoryEstimate:
    """Returns what `nearest` takes for so many images, before it is done.

    Example:
        >>> from cnnkit.features.nearest_neighbors import memory_estimate
        >>> million = memory_estimate(1_000_000, 4096, queries=100)
        >>> million.read_bytes, million.block_bytes < 2**28
        (16384000000, True)
    """
    # Of every row: itself in memory, and its distances to the queries in two precisions.
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
    """Finds the k nearest vectors by Euclidean distance, exactly.

    A block at a time: a float32 matrix product gives distances to within their rounding, and only
    vectors that may be among the nearest are measured again in float64. The whole matrix of
    distances never exists; the features may be larger than the memory.

    Args:
        queries: (q, d).
        parts: (n, d) float32, or such arrays one after the other, perhaps mapped files.
        k: How many.

    Returns:
        The nearest; fewer than k where there are fewer vectors.

    Raises:
        UsageError: If k is below 1, or the lengths of the vectors differ.
        DataError: If there are no vectors, or one is not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit.features.nearest_neighbors import nearest_neighbors
        >>> nearest_neighbors(np.array([[0.0]]), np.array([[3.0], [-1.0], [2.0]]), k=2).index
        array([[1, 2]])
    """
    if k < 1:
        raise UsageError(
            "At least one neighbor is asked for", expected="k of 1 or more", received=k
        )
    queries = np.asarray(queries, np.float64)
    if not np.isfinite(queries).all():
        raise DataError("A query has features that are not finite")
    single = queries.astype(np.float32)
    lengths = np.linalg.norm(queries, axis=1)
    found = [(np.zeros(0, np.int64), np.zeros(0)) for _ in queries]
    start = 0
    for part in [parts] if isinstance(parts, np.ndarray) else parts:
        if part.shape[1] != queries.shape[1]:
            raise UsageError(
                "Queries and features differ in length",
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
            products = single @ block.T
            for i, query in enumerate(queries):
                about = lengths[i] ** 2 + squares - 2 * products[i].astype(np.float64)
                margin = _rounding(lengths[i], np.sqrt(squares), block.shape[1])
                near = _candidates(about, margin, found[i][1], k)
                exact = np.linalg.norm(block[near].astype(np.float64) - query, axis=1)
                found[i] = _best(found[i], (start + begin + near, exact), k)
        start += len(part)
    if not start:
        raise DataError("There are no features to search")
    return NearestIndices(np.stack([index for index, _ in found]), np.stack([d for _, d in found]))


@dataclass(frozen=True)
class Neighbor:
    """A near image: its place among the features, name, class and Euclidean distance."""

    index: int
    name: str
    label: str
    distance: float


def find_neighbors(
    model: keras.Model, files: Sequence[str | Path], features: str | Path, k: int = 6
) -> list[list[Neighbor]]:
    """Finds the images whose features are nearest to those of image files.

    Args:
        model: The network that made the features.
        files: Image files.
        features: Folder of `cnnkit features`; its layer and protocol are applied to the files.
        k: Images for each file; AlexNet's figure shows six.

    Returns:
        For every file its nearest images, nearest first.

    Raises:
        UsageError: If the features are of another network, or a file does not exist.
        DataError: If features are missing or torn, or a file is no image.

    Example:
        >>> from cnnkit import load_model
        >>> from cnnkit.features.nearest_neighbors import find_neighbors
        >>> find_neighbors(load_model("runs/demo"), ["digit.png"], "features")  # doctest: +SKIP
        [[Neighbor(index=17, name='digit0021', label='5', distance=0.41), ...]]
    """
    split = split_from_files(files)
    index = read_index(features)
    describer = FeatureExtractor(model, index.protocol)
    if describer.identity != index.identity:
        raise UsageError(
            f"{features} holds features of another network",
            expected=f"those of {model.name}, {describer.identity[:12]}",
            received=f"{index.network}, {index.identity[:12]}",
            hint="Write the features of this network, or name the one that made them",
        )
    queries = np.empty((len(split), index.dimension), np.float32)
    for places, [vectors] in stream_features(describer, split, np.arange(len(split)), BATCH_SIZE):
        queries[places] = vectors
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
        for indices, distances in zip(found.index, found.distance, strict=True)
    ]


def _rounding(length: float, lengths: np.ndarray, dimension: int) -> np.ndarray:
    """Returns how far a distance squared of the float32 product may be off, at most."""
    # The bound of a sum of products, d eps |q| |x|, twice because the product counts twice, and
    # once more for the query's own rounding to float32.
    return 3 * dimension * EPSILON * length * lengths


def _candidates(about: np.ndarray, margin: np.ndarray, best: np.ndarray, k: int) -> np.ndarray:
    """Returns the rows that may be among the k nearest, given the distances found before."""
    upper = about + margin
    limit = np.partition(upper, k - 1)[k - 1] if len(upper) > k else np.inf
    if len(best) == k:
        limit = min(limit, best[-1] ** 2)
    return np.flatnonzero(about - margin <= limit)


def _best(first: tuple, second: tuple, k: int) -> tuple[np.ndarray, np.ndarray]:
    index, distance = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    order = np.lexsort((index, distance))[:k]
    return index[order], distance[order]

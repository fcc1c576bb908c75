"""Rows of arrays in memory-mapped files, without keeping the pages of the file in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np

# Rows that are read at a time.
ROWS = 256


def release_pages(array: np.ndarray) -> None:
    """Give the memory of a memory-mapped array back; the values stay in its file.

    Pages that were read or written count as memory of the process until the system is short of it.
    Nothing happens to an array that is not mapped, whose changes are in memory alone (mode `c`), or
    where the system cannot do this.
    """
    mapping = array.base
    if not isinstance(array, np.memmap) or array.mode == "c":
        return
    if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def iter_rows(array: np.ndarray, order: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield chosen rows of an array in blocks, and release its pages after each.

    Args:
        array: (n, ...), which may be memory-mapped.
        order: (m,) int, the rows.

    Yields:
        The place of the block in `order`, and a copy of its rows.
    """
    for start in range(0, len(order), ROWS):
        place = slice(start, start + ROWS)
        block = array[order[place]]
        release_pages(array)
        yield place, block


def take_rows(array: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return a copy of chosen rows of an array, (m, ...); see `iter_rows`."""
    rows = np.empty((len(order), *array.shape[1:]), array.dtype)
    for place, block in iter_rows(array, order):
        rows[place] = block
    return rows

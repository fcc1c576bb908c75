"""Which part of every map a rectangle of the image reaches, and where the pieces lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnkit.models.receptive_field import LayerWindow


@dataclass(frozen=True)
class AffectedRegion:
    """One axis of one map, for n rectangles.

    Attributes:
        first: (n,) int, the first place that the rectangle reaches.
        end: (n,) int, the place after the last.
        side: Places of the map along this axis.
    """

    first: np.ndarray
    end: np.ndarray
    side: int

    @property
    def size(self) -> int:
        """Places that are recomputed: the most that any of the rectangles reaches."""
        return min(self.side, max(1, int((self.end - self.first).max())))

    @property
    def start(self) -> np.ndarray:
        """(n,) int, where the recomputed places begin: a window that is too large is as exact."""
        return np.clip(self.first, 0, self.side - self.size)

    def through(self, window: LayerWindow) -> AffectedRegion:
        """Returns the reach in the map that `window` makes of this one."""
        before, count = window.before(self.side), window.count(self.side)
        first = -((window.extent(self.side) - 1 - before - self.first) // window.stride)
        end = (self.end - 1 + before) // window.stride + 1
        return AffectedRegion(np.clip(first, 0, count), np.clip(end, 0, count), count)

    def joined(self, other: AffectedRegion) -> AffectedRegion:
        """Returns the reach in a map that is computed from this and the other one."""
        first, end = np.minimum(self.first, other.first), np.maximum(self.end, other.end)
        return AffectedRegion(first, end, self.side)

    def looked_at(self, window: LayerWindow, below: int) -> np.ndarray:
        """Returns the places of the map below that the recomputed places look at, (n, k) int.

        Args:
            window: What makes this map of the one below.
            below: Places of that one.
        """
        length = (self.size - 1) * window.stride + window.extent(below)
        start = self.start * window.stride - window.before(below)
        return start[:, None] + np.arange(length)


def source_windows(
    reaches: Sequence[AffectedRegion], rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Returns where the values at places of a map come from, for every rectangle.

    Args:
        reaches: Of the map's rows and columns.
        rows: (n, k), may lie outside of the map.
        columns: (n, l).

    Returns:
        (n, k, l) int32, indices into one list: the padding, then the map of the clean image row by
        row, then the recomputed windows, one rectangle after the other.
    """
    down, across = reaches
    # Broadcast along the other axis.
    r, c = rows[:, :, None], columns[:, None, :]
    row = r - down.start[:, None, None]
    column = c - across.start[:, None, None]
    one = np.arange(len(rows))[:, None, None]
    recomputed = (one * down.size + row) * across.size + column + down.side * across.side + 1
    fresh = (row >= 0) & (row < down.size) & (column >= 0) & (column < across.size)
    index = np.where(fresh, recomputed, r * across.side + c + 1)
    on_map = (r >= 0) & (r < down.side) & (c >= 0) & (c < across.side)
    return np.where(on_map, index, 0).astype(np.int32)

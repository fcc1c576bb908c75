"""The region of each feature map that an occluding rectangle affects.

All indices are along one axis, rows or columns, and for n rectangles at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnkit.models.receptive_field import LayerWindow


@dataclass(frozen=True)
class AffectedRegion:
    """The affected interval of one axis of one map, for n rectangles.

    Attributes:
        first: (n,) int, the first position that the rectangle affects.
        end: (n,) int, one past the last position.
        side: Length of the map along this axis.
    """

    first: np.ndarray
    end: np.ndarray
    side: int

    @property
    def size(self) -> int:
        """Number of positions that are recomputed: the most that any rectangle affects."""
        return min(self.side, max(1, int((self.end - self.first).max())))

    @property
    def start(self) -> np.ndarray:
        """(n,) int, the first recomputed position. A window may be larger than the region."""
        return np.clip(self.first, 0, self.side - self.size)

    def propagate(self, window: LayerWindow) -> AffectedRegion:
        """Returns the affected region of the output of a layer with this window."""
        before, count = window.before(self.side), window.count(self.side)
        first = -((window.extent(self.side) - 1 - before - self.first) // window.stride)
        end = (self.end - 1 + before) // window.stride + 1
        return AffectedRegion(np.clip(first, 0, count), np.clip(end, 0, count), count)

    def union(self, other: AffectedRegion) -> AffectedRegion:
        """Returns the smallest interval that contains both regions of maps of one size."""
        first, end = np.minimum(self.first, other.first), np.maximum(self.end, other.end)
        return AffectedRegion(first, end, self.side)

    def input_positions(self, window: LayerWindow, input_side: int) -> np.ndarray:
        """Returns the input positions that the recomputed positions depend on, (n, k) int.

        Args:
            window: Window of the layer that makes this map.
            input_side: Length of the layer's input along this axis.
        """
        length = (self.size - 1) * window.stride + window.extent(input_side)
        start = self.start * window.stride - window.before(input_side)
        return start[:, None] + np.arange(length)


def gather_indices(
    regions: Sequence[AffectedRegion], rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Returns indices of the current values at positions of a map, for every rectangle.

    Args:
        regions: Affected regions of the map's rows and columns.
        rows: (n, k), may lie outside of the map.
        columns: (n, l), may lie outside of the map.

    Returns:
        (n, k, l) int32, indices into one list: the padding value, then the map of the clean image
        row by row, then the recomputed windows, one rectangle after the other.
    """
    vertical, horizontal = regions
    # Broadcast along the other axis.
    r, c = rows[:, :, None], columns[:, None, :]
    row = r - vertical.start[:, None, None]
    column = c - horizontal.start[:, None, None]
    number = np.arange(len(rows))[:, None, None]
    window_index = (number * vertical.size + row) * horizontal.size + column
    window_index += vertical.side * horizontal.side + 1
    in_window = (row >= 0) & (row < vertical.size) & (column >= 0) & (column < horizontal.size)
    index = np.where(in_window, window_index, r * horizontal.side + c + 1)
    on_map = (r >= 0) & (r < vertical.side) & (c >= 0) & (c < horizontal.side)
    return np.where(on_map, index, 0).astype(np.int32)

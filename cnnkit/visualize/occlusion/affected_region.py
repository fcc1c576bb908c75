"""The parts of a network and of its feature maps that an occluding rectangle affects.

`split_segments` divides the layers by how incremental occlusion recomputes them; an
`AffectedRegion` is the interval of a map that changes. Its indices are along one axis, rows or
columns, and for n rectangles at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from cnnkit.layers import SubtractMean
from cnnkit.models.graph import Node
from cnnkit.models.layer_window import LayerWindow, behaves_like, node_windows
from cnnkit.visualize.forward import require_windows
from cnnkit.visualize.rule_support import is_softmax


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


@dataclass(frozen=True)
class Segments:
    """The nodes of a network, divided by how they are recomputed.

    Attributes:
        prefix: Nodes that work pixel by pixel on the image, perhaps differently at every pixel.
        body: Nodes that work on windows, in the same way at every position.
        head: All other nodes.
    """

    prefix: tuple[Node, ...]
    body: tuple[Node, ...]
    head: tuple[Node, ...]


def split_segments(
    nodes: Sequence[Node], sizes: Mapping[int, Sequence[int]] | None = None
) -> Segments:
    """Divides the nodes of a network into segments.

    Layers and activations that are not known to work position by position go to the head, and so do
    all layers above them.

    Args:
        nodes: The nodes of a network.
        sizes: By the number of each value, its shape without the batch; None takes the symbolic
            shapes, in which the sides may be unknown.
    """
    pixels, maps = {0}, {0}
    prefix: list[Node] = []
    body: list[Node] = []
    head: list[Node] = []
    for node in nodes:
        windows = None if _has_softmax(node.layer) else node_windows(node)
        if sizes and len({tuple(sizes.get(value, ())[:2]) for value in node.inputs}) > 1:
            # A small map is repeated over a large one.
            windows = None
        if windows and _is_pointwise(windows) and pixels.issuperset(node.inputs):
            pixels.add(node.output)
            prefix.append(node)
        elif (
            windows
            and windows[0].kernel
            and maps.issuperset(node.inputs)
            and _is_translation_equivariant(node)
        ):
            body.append(node)
        else:
            head.append(node)
            continue
        maps.add(node.output)
    flat = {node.output for node in prefix if len(node.tensors[0].shape) != 4}
    if any(flat.intersection(node.inputs) for node in head):
        # Only maps of several channels are pasted.
        return Segments((), (), tuple(nodes))
    return Segments(tuple(prefix), tuple(body), tuple(head))


def works_in_place(node: Node) -> bool:
    """Returns True for a node with one input map whose window is a single position."""
    return len(node.inputs) == 1 and _is_pointwise(require_windows(node))


def _is_pointwise(windows: Sequence[LayerWindow]) -> bool:
    return all(
        (window.kernel, window.stride) == (1, 1) and window.padding in (None, (0, 0))
        for window in windows
    )


def _has_softmax(layer: keras.Operation) -> bool:
    """Returns True for a softmax: the last one of a network must stay in the head."""
    return is_softmax(layer) or is_softmax(getattr(layer, "activation", None))


def _is_translation_equivariant(node: Node) -> bool:
    """Returns True for a node with a window that does the same at every position of a map."""
    if {len(shape) for shape in (*node.input_shapes, node.tensors[0].shape)} != {4}:
        return False
    if node.operation is not None:
        return all(max((1, *np.shape(one)[:-1])) == 1 for one in node.constants)
    return _layer_is_equivariant(node.layer)


def _layer_is_equivariant(layer: keras.layers.Layer) -> bool:
    activation = getattr(layer, "activation", None)
    if isinstance(activation, keras.layers.Layer) and not _layer_is_equivariant(activation):
        return False
    if behaves_like(layer, [SubtractMean]):
        return layer.mean.ndim == 1
    if behaves_like(layer, [keras.layers.PReLU]):
        return set(layer.shared_axes or ()) >= {1, 2}
    if behaves_like(layer, [keras.layers.BatchNormalization]):
        return layer.axis in (-1, 3)
    if behaves_like(layer, [keras.layers.Normalization]):
        return layer.axis is None or tuple(layer.axis) in ((-1,), (3,), ())
    return True

"""Receptive fields, computed from the windows of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import keras
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.graph import Graph, Node, build_graph
from cnnkit.models.layer_window import LayerWindow, node_windows


def too_small_for_layer(layer: keras.Operation, image_size: Sequence[int]) -> UsageError:
    """Return the error for an image, (h, w), whose map is smaller than a window of a layer.

    Example:
        >>> import keras
        >>> from cnnkit.models.receptive_field import too_small_for_layer
        >>> str(too_small_for_layer(keras.layers.Conv2D(8, 9, name="conv2"), (7, 20)))
        "The image is too small: the window of layer 'conv2' does not fit. Received: 7 x 20."
    """
    return UsageError(
        f"The image is too small: the window of layer {layer.name!r} does not fit",
        received=" x ".join(map(str, image_size)),
    )


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; `bottom` and `right` are the first row and column outside of it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rectangle as an index, `image[box.slices]`, if it lies within the image."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of the units of a layer.

    Without the borders of the image and of the maps, the field of the unit at (row, column) has
    `size` pixels from `offset + (row, column) * stride` on. All units of a dense or flattened layer
    have the field of the whole map below; their stride is 0.

    Attributes:
        layer: Name of the layer.
        size: (rows, columns) of a field.
        stride: (rows, columns) from one field to the next.
        offset: First row and column of the field of the unit at (0, 0), negative in the padding.
        image: (h, w) of the image.
        rows: (h', 2) int, for every row of the map the first row of the image and the one after
            the last. Fields are cut at the borders of all maps on the way: pixels that only padding
            leads to are left out.
        columns: (w', 2) int, the same for the columns.
    """

    layer: str
    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]
    image: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray

    def box(self, position: tuple[int, ...] = ()) -> Box:
        """Return the exact field of the unit at `position`, () in a layer without positions."""
        row, column = position or (0, 0)
        (top, bottom), (left, right) = self.rows[row].tolist(), self.columns[column].tolist()
        return Box(top, left, bottom, right)

    def unclipped(self, position: tuple[int, ...] = ()) -> Box:
        """Return the field of the unit in an endless image, of the same size for every unit."""
        top, left = (
            first + index * step
            for first, index, step in zip(self.offset, position or (0, 0), self.stride, strict=True)
        )
        return Box(top, left, top + self.size[0], left + self.size[1])


def receptive_field(
    model: keras.Model | Graph, layer: str, image_size: tuple[int, int] | None = None
) -> ReceptiveField:
    """Return the receptive fields of the units of a layer.

    Args:
        model: A functional or sequential model over images, with any branches, or its graph.
        layer: Name of a layer.
        image_size: (h, w) of the image; None is the model's own.

    Raises:
        UsageError: If there is no such layer, the image is too small for it or its size is unknown,
            a layer on the way is of an unknown kind, or branches of different strides meet.

    Example:
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import receptive_field
        >>> field = receptive_field(zfnet(include_top=False, input_shape=(224, 224, 3)), "conv5")
        >>> field.size, field.stride, field.box((6, 0))
        ((139, 139), (16, 16), Box(top=48, left=0, bottom=187, right=91))
    """
    graph = build_graph(model)
    end = graph.node(layer)
    height, width = graph.image_shape[:2] if image_size is None else image_size
    if height is None or width is None:
        raise UsageError(
            f"`image_size` must be given, because model {graph.name!r} takes images of any size",
            expected="a height and a width in pixels",
        )
    sides = (height, width)
    axes = {0: tuple(_Axis(np.eye(side, dtype=bool), 0, 1, 1) for side in sides)}
    for node in graph.ancestors(end):
        axes[node.output] = _apply_layer(node, [axes[value] for value in node.inputs], sides)
    rows, columns = axes[end.output]
    return ReceptiveField(
        layer=layer,
        size=(rows.size, columns.size),
        stride=(rows.step, columns.step),
        offset=(rows.start, columns.start),
        image=sides,
        rows=rows.spans(),
        columns=columns.spans(),
    )


@dataclass(frozen=True)
class _Axis:
    """One axis of a map: sees[i, p] is whether pixel p is in the field of position i."""

    sees: np.ndarray
    start: int
    step: int
    size: int

    def under(self, window: LayerWindow) -> _Axis:
        """Return the axis of the map that a layer with `window` makes of this one."""
        side = len(self.sees)
        count, before, extent = window.count(side), window.before(side), window.extent(side)
        sees = np.zeros((max(count, 0), self.sees.shape[1]), bool)
        for place in range(0, extent, window.dilation):
            looked_at = np.arange(len(sees)) * window.stride - before + place
            inside = (looked_at >= 0) & (looked_at < side)
            sees[inside] |= self.sees[looked_at[inside]]
        return _Axis(
            sees,
            self.start - before * self.step,
            self.step * window.stride,
            self.size + (extent - 1) * self.step,
        )

    def joined(self, other: _Axis) -> _Axis:
        """Return the axis of a map that is computed from this and the other one."""
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return _Axis(self.sees | other.sees, start, self.step, end - start)

    def spans(self) -> np.ndarray:
        """Return the first pixel of each field and the one after the last, (count, 2)."""
        last = self.sees.shape[1] - np.argmax(self.sees[:, ::-1], axis=1)
        spans = np.stack([np.argmax(self.sees, axis=1), last], axis=1)
        # A window over padding alone has no pixel.
        return np.where(self.sees.any(axis=1, keepdims=True), spans, 0)


def _apply_layer(
    node: Node, inputs: list[tuple[_Axis, ...]], sides: tuple[int, ...]
) -> tuple[_Axis, ...]:
    layer = node.layer
    windows = node_windows(node)
    if windows is None:
        raise UsageError(
            f"The receptive field of layer {layer.name!r} is unknown",
            expected="convolutions, pooling, padding, dense layers and pointwise layers",
            received=type(layer).__name__ + ("" if node.is_pure else " with arguments of its own"),
        )
    result = []
    for window, axes in zip(windows, zip(*inputs, strict=True), strict=True):
        if len({(axis.step, len(axis.sees)) for axis in axes}) > 1:
            raise UsageError(
                f"The branches into layer {layer.name!r} must have one stride and one size",
                expected="one stride and one size of map",
                received=", ".join(f"stride {a.step} of {len(a.sees)} positions" for a in axes),
            )
        axis = reduce(_Axis.joined, axes).under(window)
        if not len(axis.sees):
            raise too_small_for_layer(layer, sides)
        result.append(axis)
    return tuple(result)

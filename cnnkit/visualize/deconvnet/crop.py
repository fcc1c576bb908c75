"""The forward pass of only the part of an image that one unit depends on.

A unit whose receptive field does not touch the image's border depends on no padding. In every layer
below it depends on an interval of rows and an interval of columns inside the map. These have the
same size for all such units of a layer, and no layer has to pad: the same sums over far fewer
positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from cnnkit.layers import CeilMaxPooling2D, Dropout, LocalResponseNormalization, ReLU, SubtractMean
from cnnkit.models.graph import Graph, Node
from cnnkit.models.layer_window import CONVOLUTIONS, LayerWindow, behaves_like, node_windows
from cnnkit.models.logits import output_activation
from cnnkit.models.receptive_field import Box
from cnnkit.visualize.forward import (
    apply_activation,
    call_node,
    output_before_activation,
    preactivation,
    require_windows,
)

# Layers that do the same at every position of a map, except at its border.
TRANSLATION_EQUIVARIANT = (
    CeilMaxPooling2D,
    Dropout,
    LocalResponseNormalization,
    ReLU,
    SubtractMean,
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    *CONVOLUTIONS,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.Identity,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)

# First and one past the last position, of the rows and of the columns.
Span = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class CropRegion:
    """The part of every value that one unit depends on.

    Attributes:
        nodes: From the image to the layer.
        spans: For every value, the span of its map that some node needs; 0 is the image.
        input_spans: For every node, by the value it makes, the span of its inputs that it needs.
    """

    nodes: tuple[Node, ...]
    spans: Mapping[int, Span]
    input_spans: Mapping[int, Span]

    @property
    def box(self) -> Box:
        """The unit's receptive field in the image."""
        (top, bottom), (left, right) = self.spans[0]
        return Box(top, left, bottom, right)


def crop_for_unit(
    graph: Graph, nodes: Sequence[Node], position: Sequence[int], image_size: Sequence[int]
) -> CropRegion | None:
    """Returns the region that the unit at `position` of the last of `nodes` depends on.

    It is None if the unit depends on padding, if the layer has no positions, or if some layer below
    does not do the same at every position.

    Args:
        graph: The model's graph.
        nodes: From the image to a layer, checked by `check_supports_rule`.
        position: (row, column).
        image_size: (h, w).

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models.graph import build_graph
        >>> graph = build_graph(vgg11(include_top=False, input_shape=(64, 64, 3)))
        >>> nodes = graph.ancestors(graph.node("block2_conv1"))
        >>> crop_for_unit(graph, nodes, (16, 9), (64, 64)).box
        Box(top=29, left=15, bottom=37, right=23)
        >>> crop_for_unit(graph, nodes, (0, 9), (64, 64)) is None
        True
    """
    if len(position) != 2 or not all(_is_translation_equivariant(node) for node in nodes):
        return None
    sides: dict[int, Sequence[int]] = {0: image_size}
    for node in nodes:
        # All inputs of a node have one size: `receptive_field` has refused other models.
        below = sides[node.inputs[0]]
        windows = require_windows(node)
        sides[node.output] = tuple(w.count(s) for w, s in zip(windows, below, strict=True))
    spans: dict[int, Span] = {nodes[-1].output: tuple((at, at + 1) for at in position)}
    input_spans: dict[int, Span] = {}
    for node in reversed(nodes):
        span, windows = spans[node.output], require_windows(node)
        below = sides[node.inputs[0]]
        needed = tuple(_input_interval(*axis) for axis in zip(span, windows, below, strict=True))
        if any(low < 0 or high > side for (low, high), side in zip(needed, below, strict=True)):
            return None
        input_spans[node.output] = needed
        for value in node.inputs:
            spans[value] = _union(spans[value], needed) if value in spans else needed
    return CropRegion(tuple(nodes), spans, input_spans)


def _is_translation_equivariant(node: Node) -> bool:
    layer = node.layer
    if node.operation is not None or node_windows(node) is None:
        return False
    if layer.compute_dtype != "float32":
        # Convolutions of half types use other algorithms, depending on the size.
        return False
    if isinstance(layer, SubtractMean):
        # A mean image differs from position to position.
        return layer.mean.ndim == 1
    if isinstance(layer, LocalResponseNormalization):
        return layer.region == "across"
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.axis in (-1, 3)
    return bool(behaves_like(layer, TRANSLATION_EQUIVARIANT))


def _input_interval(
    interval: tuple[int, int], window: LayerWindow, input_side: int
) -> tuple[int, int]:
    first = interval[0] * window.stride - window.before(input_side)
    length = (interval[1] - interval[0] - 1) * window.stride + window.extent(input_side)
    return first, first + length


def _union(one: Span, other: Span) -> Span:
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def forward_crop(region: CropRegion, pixels: tf.Tensor) -> tf.Tensor:
    """Returns the outputs of all units of the layer for crops of images.

    Args:
        region: A region of `crop_for_unit`; regions that differ by a shift are equivalent.
        pixels: (n, h, w, c) float32, crops of the size of `region.box`.

    Returns:
        (n, 1, 1, units).
    """
    values = {0: pixels}
    for node in region.nodes:
        needed = region.input_spans[node.output]
        inputs = [_slice(values[value], region.spans[value], needed) for value in node.inputs]
        values[node.output] = _call_without_padding(node, inputs, last=node is region.nodes[-1])
    return values[region.nodes[-1].output]


def _slice(values: tf.Tensor, span: Span, needed: Span) -> tf.Tensor:
    if span == needed:
        return values
    (top, bottom), (left, right) = (
        (low - first, high - first) for (first, _), (low, high) in zip(span, needed, strict=True)
    )
    return values[:, top:bottom, left:right]


def _call_without_padding(node: Node, inputs: Sequence[tf.Tensor], *, last: bool) -> tf.Tensor:
    """Returns the output of a layer whose inputs hold the padding. A last softmax is skipped."""
    layer = node.layer
    if behaves_like(layer, [keras.layers.ZeroPadding2D, keras.layers.Cropping2D]):
        return inputs[0]
    if behaves_like(layer, [CeilMaxPooling2D, keras.layers.MaxPooling2D]):
        return tf.nn.max_pool2d(*inputs, layer.pool_size, layer.strides, "VALID")
    if behaves_like(layer, [keras.layers.AveragePooling2D]):
        return tf.nn.avg_pool2d(*inputs, layer.pool_size, layer.strides, "VALID")
    skipped = last and output_activation(layer) == "softmax"
    if behaves_like(layer, CONVOLUTIONS):
        linear = preactivation(layer, *inputs, padding="valid")
        return linear if skipped else apply_activation(layer.activation, linear)
    return output_before_activation(node, inputs) if skipped else call_node(node, inputs)

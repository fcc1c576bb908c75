"""The pass through a network for the part of an image that one unit sees, and no more of it.

A unit whose receptive field lies well inside the image sees no padding. Everything that it depends
on in every layer is then an interval of rows and of columns inside the map, of the same size for
all such units of a layer, and no layer has to pad: the same sums over far fewer places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from cnnkit.layers import CeilMaxPooling2D, Dropout, LocalResponseNormalization, ReLU, SubtractMean
from cnnkit.models.graph import Graph, Node
from cnnkit.models.receptive_field import Box, LayerWindow, behaves_like, window_of
from cnnkit.visualize.forward import apply_activation, call_layer, preactivation

# Layers that do the same at every place of a map, but for its border.
EVERYWHERE_ALIKE = (
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
    keras.layers.Conv2D,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.Identity,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)

# First and one past the last place, of the rows and of the columns.
Span = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class CropRegion:
    """What one unit needs of every value on the way to it.

    Attributes:
        nodes: From the image to the layer.
        spans: For every value, what is needed of its map; 0 is the image.
        takes: For every node, by the value it makes, what it takes of its inputs.
    """

    nodes: tuple[Node, ...]
    spans: Mapping[int, Span]
    takes: Mapping[int, Span]

    @property
    def box(self) -> Box:
        """What the unit sees of the image."""
        (top, bottom), (left, right) = self.spans[0]
        return Box(top, left, bottom, right)


def crop_for_unit(
    graph: Graph, nodes: Sequence[Node], position: Sequence[int], image_size: Sequence[int]
) -> CropRegion | None:
    """Returns what the unit at `position` of the last of `nodes` needs.

    None stands for a unit that sees a border, a layer without places, or one that does not do the
    same everywhere.

    Args:
        graph: The network.
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
    if len(position) != 2 or not all(_alike(node.layer) for node in nodes):
        return None
    sides = {0: tuple(image_size)}
    for node in nodes:
        # The maps that are joined have one size: `receptive_field` has refused all others.
        below = sides[node.inputs[0]]
        looks = window_of(node.layer)
        sides[node.output] = tuple(w.count(s) for w, s in zip(looks, below, strict=True))
    spans: dict[int, Span] = {nodes[-1].output: tuple((at, at + 1) for at in position)}
    takes: dict[int, Span] = {}
    for node in reversed(nodes):
        span, looks = spans[node.output], window_of(node.layer)
        below = sides[node.inputs[0]]
        taken = tuple(_below(*axis) for axis in zip(span, looks, below, strict=True))
        if any(low < 0 or high > side for (low, high), side in zip(taken, below, strict=True)):
            return None
        takes[node.output] = taken
        for value in node.inputs:
            spans[value] = _joined(spans[value], taken) if value in spans else taken
    return CropRegion(tuple(nodes), spans, takes)


def forward_crop(cut: CropRegion, pixels):
    """Returns what the unit answers, and all units that need the same of other images.

    Args:
        cut: What `crop_for_unit` returned.
        pixels: (n, *) what such units see, (n, h, w, c) float32 of the size of `cut.box`.

    Returns:
        (n, 1, 1, units).
    """
    values = {0: pixels}
    for node in cut.nodes:
        inputs = [
            _part(values[value], cut.spans[value], cut.takes[node.output]) for value in node.inputs
        ]
        values[node.output] = _answer(node.layer, inputs, last=node is cut.nodes[-1])
    return values[cut.nodes[-1].output]


def _alike(layer) -> bool:
    if layer.compute_dtype != "float32":
        # Half types take ways of their own through a convolution.
        return False
    if isinstance(layer, SubtractMean):
        # A mean image is another one at every place.
        return layer.mean.ndim == 1
    if isinstance(layer, LocalResponseNormalization):
        return layer.region == "across"
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.axis in (-1, 3)
    return bool(behaves_like(layer, EVERYWHERE_ALIKE))


def _below(span: tuple[int, int], window: LayerWindow, side: int) -> tuple[int, int]:
    first = span[0] * window.stride - window.before(side)
    return first, first + (span[1] - span[0] - 1) * window.stride + window.extent(side)


def _joined(one: Span, other: Span) -> Span:
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def _part(values, span: Span, taken: Span):
    if span == taken:
        return values
    (top, bottom), (left, right) = (
        (low - first, high - first) for (first, _), (low, high) in zip(span, taken, strict=True)
    )
    return values[:, top:bottom, left:right]


def _answer(layer, inputs, *, last: bool):
    if behaves_like(layer, [keras.layers.ZeroPadding2D, keras.layers.Cropping2D]):
        return inputs[0]
    if behaves_like(layer, [CeilMaxPooling2D, keras.layers.MaxPooling2D]):
        return tf.nn.max_pool2d(*inputs, layer.pool_size, layer.strides, "VALID")
    if behaves_like(layer, [keras.layers.AveragePooling2D]):
        return tf.nn.avg_pool2d(*inputs, layer.pool_size, layer.strides, "VALID")
    if behaves_like(layer, [keras.layers.Conv2D]):
        linear = preactivation(layer, *inputs, padding="valid")
        return apply_activation(layer.activation, linear, last=last)
    return call_layer(layer, inputs, last=last)

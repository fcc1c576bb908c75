"""Forward passes of images that differ from one image in a rectangle, without repeated work.

A rectangle changes only a window of every early feature map. The maps of the clean image are kept;
of each layer only the window is recomputed. The inputs beyond the recomputed window below come from
the clean map: one gather, then the layer itself without padding. Layers that depend on the whole
map, or whose windows are not known, are computed in full, on maps into which the windows are
pasted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cnnkit.layers import CeilMaxPooling2D, LocalResponseNormalization
from cnnkit.layers.grouped_conv import convolve
from cnnkit.models.graph import Node
from cnnkit.models.layer_window import CONVOLUTIONS, behaves_like
from cnnkit.visualize.forward import forward_from, forward_to, preactivation, require_windows
from cnnkit.visualize.occlusion.affected_region import (
    AffectedRegion,
    Segments,
    gather_indices,
    split_segments,
    works_in_place,
)

# Values that wait for one pass of the head, over all rectangles: 64 MB of float32.
HEAD_VALUES = 16 * 2**20

_MAX_POOLING = (CeilMaxPooling2D, keras.layers.MaxPooling2D)

# A wanted output: a node, and the channel to sum over all positions or None for all of the output.
Wanted = tuple[Node, int | None]
# Affected regions of a map's rows and columns.
Regions = tuple[AffectedRegion, ...]


@dataclass(frozen=True)
class _CleanPass:
    """Everything that does not depend on the rectangles. Values are keyed by their numbers.

    Attributes:
        segments: The nodes of the network.
        values: (h, w, c) each, the values of the clean image.
        filled: (h, w, c) each, the values of a filled image in the prefix.
        pasted: Maps that the head or the caller needs: the value's number, and None for the whole
            map or a channel for its sum.
    """

    segments: Segments
    values: dict[int, tf.Tensor]
    filled: dict[int, np.ndarray]
    pasted: tuple[tuple[int, int | None], ...]

    @property
    def body_inputs(self) -> list[int]:
        """The values of the prefix that the body takes, or that are pasted."""
        used = {v for node in self.segments.body for v in node.inputs} | {v for v, _ in self.pasted}
        return sorted(used & set(self.filled))


def incremental_occlusion(
    nodes: Sequence[Node], image: np.ndarray, filled: np.ndarray, wanted: Sequence[Wanted]
) -> Callable[[np.ndarray, int], list[np.ndarray]]:
    """Returns a function of rectangles that recomputes only the affected values.

    Args:
        nodes: The nodes of a network, all of them pure; the first has a known window.
        image: (h, w, c) float32.
        filled: (h, w, c) float32, the pixels inside of a rectangle.
        wanted: Nodes, each with the channel whose sum over all positions is wanted, or None for the
            whole output.

    Returns:
        A function of rectangles, (n, 2, 2) int, the first row and one past the last, then the
        columns; and of a batch size. It returns (n,) or (n, ...) for each of `wanted`: for the
        last of `nodes` its output before a softmax or a sigmoid.
    """
    clean = _clean_pass(nodes, image, filled, wanted)
    body, head = _compile(clean, wanted)
    values_per_rectangle = sum(
        np.prod(clean.values[v].shape) for v, channel in clean.pasted if channel is None
    )

    def occlude(rectangles: np.ndarray, batch_size: int) -> list[np.ndarray]:
        order = _order_by_region_size(clean, rectangles)
        # The weights of large layers in the head take longer to read than to apply, so the head
        # takes larger batches.
        head_batch = max(batch_size, HEAD_VALUES // max(1, int(values_per_rectangle)))
        results, waiting, count = [], [], 0
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            waiting.append(body(*_body_arguments(clean, rectangles[batch])))
            count += len(batch)
            if count >= head_batch or start + batch_size >= len(order):
                results.append(head([tf.concat(one, axis=0) for one in zip(*waiting, strict=True)]))
                waiting, count = [], 0
        original_order = np.argsort(order)
        return [np.concatenate(one)[original_order] for one in zip(*results, strict=True)]

    return occlude


def _clean_pass(
    nodes: Sequence[Node], image: np.ndarray, filled: np.ndarray, wanted: Sequence[Wanted]
) -> _CleanPass:
    outputs = forward_to(nodes, image[None], nodes)
    values = {
        node.output: one[0]
        for node, one in zip(nodes, outputs, strict=True)
        if len(node.tensors) == 1
    }
    values[0] = tf.constant(image)
    segments = split_segments(nodes, {value: one.shape for value, one in values.items()})
    filled_values = {0: filled}
    if segments.prefix:
        outputs = forward_to(segments.prefix, filled[None], segments.prefix)
        for node, one in zip(segments.prefix, outputs, strict=True):
            filled_values[node.output] = one[0].numpy()
    maps = {*filled_values, *(node.output for node in segments.body)}
    head_inputs = {v for node in segments.head for v in node.inputs}
    pasted: list[tuple[int, int | None]] = [(v, None) for v in sorted(maps & head_inputs)]
    pasted += [(node.output, channel) for node, channel in wanted if node.output in maps]
    return _CleanPass(segments, values, filled_values, tuple(dict.fromkeys(pasted)))


def _compile(
    clean: _CleanPass, wanted: Sequence[Wanted]
) -> tuple[tf.types.experimental.PolymorphicFunction, ...]:
    """Returns body and head, each traced once for any number and size of windows."""
    gathers = sum(len(node.inputs) for node in clean.segments.body if not works_in_place(node))

    def spec(value: int, *shape: int | None) -> tf.TensorSpec:
        return tf.TensorSpec((*shape, clean.values[value].shape[-1]), clean.values[value].dtype)

    windows_and_indices = [
        [spec(v, None, None, None) for v in clean.body_inputs],
        [tf.TensorSpec((None, None, None), tf.int32)] * (gathers + len(clean.pasted)),
    ]
    pasted = [
        spec(v, None, *clean.values[v].shape[:-1]) if channel is None else tf.TensorSpec((None,))
        for v, channel in clean.pasted
    ]

    @tf.function(input_signature=windows_and_indices, autograph=False)
    def body(windows: list[tf.Tensor], indices: list[tf.Tensor]) -> list[tf.Tensor]:
        return _run_body(clean, windows, indices)

    @tf.function(input_signature=[pasted], autograph=False)
    def head(maps: list[tf.Tensor]) -> list[tf.Tensor]:
        return _run_head(clean, maps, wanted)

    return body, head


# In NumPy: which windows are recomputed, and where their inputs come from.


def _affected_regions(clean: _CleanPass, rectangles: np.ndarray) -> dict[int, Regions]:
    """Returns the region of every map that the rectangles affect, by the map's number."""
    sides = clean.values[0].shape[:2]
    image = tuple(
        AffectedRegion(rectangles[:, axis, 0], rectangles[:, axis, 1], side)
        for axis, side in enumerate(sides)
    )
    regions = dict.fromkeys(clean.filled, image)
    for node in clean.segments.body:
        regions[node.output] = tuple(
            axis.propagate(window)
            for axis, window in zip(
                _input_regions(node, regions), require_windows(node), strict=True
            )
        )
    return regions


def _input_regions(node: Node, regions: Mapping[int, Regions]) -> list[AffectedRegion]:
    return [
        reduce(AffectedRegion.union, axis)
        for axis in zip(*(regions[v] for v in node.inputs), strict=True)
    ]


def _order_by_region_size(clean: _CleanPass, rectangles: np.ndarray) -> np.ndarray:
    """Returns an order of the rectangles by the size of their region at the end of the body."""
    if not clean.segments.body:
        return np.arange(len(rectangles))
    rows, columns = _affected_regions(clean, rectangles)[clean.segments.body[-1].output]
    return np.lexsort((columns.end - columns.first, rows.end - rows.first))


def _body_arguments(
    clean: _CleanPass, rectangles: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the windows that the body starts from, and the indices of every gather in it."""
    regions = _affected_regions(clean, rectangles)
    indices = []
    for node in clean.segments.body:
        if not works_in_place(node):
            positions = [
                axis.input_positions(window, below.side)
                for axis, window, below in zip(
                    regions[node.output],
                    require_windows(node),
                    _input_regions(node, regions),
                    strict=True,
                )
            ]
            indices += [gather_indices(regions[v], *positions) for v in node.inputs]
    for v, _ in clean.pasted:
        positions = [np.tile(np.arange(axis.side), (len(rectangles), 1)) for axis in regions[v]]
        indices.append(gather_indices(regions[v], *positions))
    windows = [
        _occluded_window(clean.values[v].numpy(), clean.filled[v], regions[v])
        for v in clean.body_inputs
    ]
    return windows, indices


def _occluded_window(clean: np.ndarray, filled: np.ndarray, regions: Regions) -> np.ndarray:
    """Returns the windows of an occluded value of the prefix, (n, k, l, c)."""
    rows, columns = (axis.start[:, None] + np.arange(axis.size) for axis in regions)
    covered_rows, covered_columns = (
        (position >= axis.first[:, None]) & (position < axis.end[:, None])
        for position, axis in zip((rows, columns), regions, strict=True)
    )
    covered = (covered_rows[:, :, None] & covered_columns[:, None, :])[..., None]
    rows, columns = rows[:, :, None], columns[:, None, :]
    return np.where(covered, filled[rows, columns], clean[rows, columns])


# In TensorFlow: the recomputation.


def _run_body(
    clean: _CleanPass, windows: Sequence[tf.Tensor], indices: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Recomputes the windows, and returns the pasted maps and the sums of channels."""
    values = dict(zip(clean.body_inputs, windows, strict=True))
    remaining = iter(indices)
    for node in clean.segments.body:
        inputs = [values[v] for v in node.inputs]
        if works_in_place(node):
            values[node.output] = node.call(inputs)
        else:
            values[node.output] = _recompute(clean, node, inputs, remaining)
    result = []
    for (v, channel), index in zip(clean.pasted, remaining, strict=True):
        channels = slice(None) if channel is None else slice(channel, channel + 1)
        pasted = _gather(clean.values[v][..., channels], values[v][..., channels], index)
        result.append(summed_activation(pasted, None if channel is None else 0))
    return result


def _recompute(
    clean: _CleanPass, node: Node, inputs: Sequence[tf.Tensor], indices: Iterator[tf.Tensor]
) -> tf.Tensor:
    index = [next(indices) for _ in inputs]
    # Maximum pooling ignores minus infinity; other layers pad with zeros.
    padding = float("-inf") if behaves_like(node.layer, _MAX_POOLING) else 0.0
    gathered = [
        _gather(clean.values[v], one, i, padding)
        for v, one, i in zip(node.inputs, inputs, index, strict=True)
    ]
    return _apply_without_padding(node, gathered, index[0] > 0)


def _run_head(
    clean: _CleanPass, pasted: Sequence[tf.Tensor], wanted: Sequence[Wanted]
) -> list[tf.Tensor]:
    """Returns the wanted outputs, from the pasted maps and the sums of channels."""
    known = dict(zip(clean.pasted, pasted, strict=True))
    missing = [(node, channel) for node, channel in wanted if (node.output, channel) not in known]
    maps = {v: one for (v, channel), one in known.items() if channel is None}
    head, ends = clean.segments.head, [node for node, _ in missing]
    outputs = forward_from(head, maps, ends, logits=[one for one in ends if one is head[-1]])
    for (node, channel), one in zip(missing, outputs, strict=True):
        known[node.output, channel] = summed_activation(one, channel)
    return [known[node.output, channel] for node, channel in wanted]


def summed_activation(values: tf.Tensor, channel: int | None) -> tf.Tensor:
    """Returns (n, ...) values, or the sum of a map's channel over all positions, (n,) float32."""
    if channel is None:
        return values
    return tf.reduce_sum(tf.cast(values[..., channel], tf.float32), axis=(1, 2))


def _gather(
    clean: tf.Tensor, windows: tf.Tensor, index: tf.Tensor, padding: float = 0.0
) -> tf.Tensor:
    """Returns the values at indices of `gather_indices`, (n, k, l, c)."""
    channels = clean.shape[-1]
    candidates = [
        tf.fill((1, channels), tf.cast(padding, clean.dtype)),
        tf.reshape(clean, (-1, channels)),
        tf.reshape(windows, (-1, channels)),
    ]
    return tf.gather(tf.concat(candidates, axis=0), index)


def _apply_without_padding(node: Node, maps: Sequence[tf.Tensor], on_map: tf.Tensor) -> tf.Tensor:
    """Returns a layer's output for windows that already contain the padding.

    Args:
        node: A node of the body.
        maps: (n, k, l, c) each, the layer's inputs.
        on_map: (n, k, l) bool, False for padding.
    """
    layer = node.layer
    if behaves_like(layer, [keras.layers.Conv2D]):
        kernel = ops.cast(layer.kernel, layer.compute_dtype)
        y = convolve(layer, ops.cast(maps[0], layer.compute_dtype), kernel, "valid")
        return layer.activation(y + ops.cast(layer.bias, y.dtype) if layer.use_bias else y)
    if behaves_like(layer, _MAX_POOLING):
        return tf.nn.max_pool2d(maps[0], layer.pool_size, layer.strides, "VALID")
    if behaves_like(layer, [keras.layers.AveragePooling2D]):
        # The mean of the values on the map, as Keras computes it with padding.
        inside = tf.cast(on_map, maps[0].dtype)[..., None]
        mean, share = (
            tf.nn.avg_pool2d(one, layer.pool_size, layer.strides, "VALID")
            for one in (maps[0], inside)
        )
        return mean / share
    if behaves_like(layer, [LocalResponseNormalization]):
        # The layer pads its input. That border is cut off again.
        edge = layer.size // 2
        return layer(maps[0])[:, edge:-edge, edge:-edge]
    if behaves_like(layer, [keras.layers.ZeroPadding2D, keras.layers.Cropping2D]):
        return maps[0]
    if behaves_like(layer, CONVOLUTIONS):
        return layer.activation(preactivation(layer, maps[0], padding="valid"))
    return node.call(maps)

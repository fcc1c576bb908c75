"""The forward pass of images that differ from one in a rectangle, without what stays the same.

A rectangle changes only a window of every early map. The maps of the clean image are kept; of each
layer only the window is recomputed, and what it looks at beyond the window below comes from the
clean map: one gather, then the layer itself without padding. Layers that look at the whole map, or
are not known here, are computed as they are, on maps into which the windows are pasted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cnnkit.layers import CeilMaxPooling2D, LocalResponseNormalization, SubtractMean
from cnnkit.layers.grouped_conv import convolve
from cnnkit.models.graph import Node
from cnnkit.models.receptive_field import behaves_like, window_of
from cnnkit.visualize.forward import forward_from, forward_to, is_softmax
from cnnkit.visualize.occlusion.affected_region import AffectedRegion, source_windows

# Values that wait for the end of the network, over all places: 64 MB of float32.
HEAD_VALUES = 16 * 2**20

_MAXIMA = (CeilMaxPooling2D, keras.layers.MaxPooling2D)


@dataclass(frozen=True)
class Segments:
    """The nodes of a network by how they are recomputed.

    Attributes:
        prefix: Works pixel by pixel on the image, perhaps otherwise at every pixel.
        body: Looks at windows, at every place in the same way.
        head: The rest.
    """

    prefix: tuple[Node, ...]
    body: tuple[Node, ...]
    head: tuple[Node, ...]


def split_segments(nodes: Sequence[Node]) -> Segments:
    """Divides the nodes of a network."""
    pixels, maps = {0}, {0}
    parts: dict[str, list[Node]] = {"prefix": [], "body": [], "head": []}
    for node in nodes:
        looks = window_of(node.layer) if node.is_pure and not _crosses(node.layer) else None
        if looks and _place_by_place(looks) and pixels.issuperset(node.inputs):
            pixels.add(node.output)
            part = "prefix"
        elif (
            looks
            and looks[0].kernel
            and _same_everywhere(node.layer)
            and maps.issuperset(node.inputs)
        ):
            part = "body"
        else:
            parts["head"].append(node)
            continue
        maps.add(node.output)
        parts[part].append(node)
    return Segments(**{name: tuple(part) for name, part in parts.items()})


def _crosses(layer) -> bool:
    """Tells whether a layer may mix places though it is listed as working place by place."""
    return is_softmax(layer) or is_softmax(getattr(layer, "activation", None))


def _same_everywhere(layer) -> bool:
    """Tells whether a layer does the same at every place of a map."""
    if behaves_like(layer, [SubtractMean]):
        return layer.mean.ndim == 1
    if behaves_like(layer, [keras.layers.PReLU]):
        return set(layer.shared_axes or ()) >= {1, 2}
    if behaves_like(layer, [keras.layers.BatchNormalization]):
        return layer.axis in (-1, 3)
    if behaves_like(layer, [keras.layers.Normalization]):
        return layer.axis is None or tuple(layer.axis) in ((-1,), (3,), ())
    return True


@dataclass(frozen=True)
class _Clean:
    """What is known before a rectangle is.

    Attributes:
        parts: The nodes of the network.
        values: (h, w, c) by number, what the clean image makes.
        inside: (h, w, c) by number, what an image makes that is filled everywhere: the prefix.
        pasted: What is needed of the maps: numbers, each with None for the whole, or a channel for
            its sum.
    """

    parts: Segments
    values: dict[int, tf.Tensor]
    inside: dict[int, np.ndarray]
    pasted: tuple[tuple[int, int | None], ...]

    @property
    def begun(self) -> list[int]:
        """The values of the prefix that the body looks at, or that are pasted."""
        used = {v for node in self.parts.body for v in node.inputs} | {v for v, _ in self.pasted}
        return sorted(used & set(self.inside))


def incremental_occlusion(
    nodes: Sequence[Node],
    image: np.ndarray,
    filled: np.ndarray,
    wanted: Sequence[tuple[Node, int | None]],
) -> Callable[[np.ndarray, int], list[np.ndarray]]:
    """Returns a function of rectangles that recomputes what they change.

    Args:
        nodes: The nodes of a network, all of them plain, the first of them known to look at places.
        image: (h, w, c) float32.
        filled: (h, w, c) float32, what the image is inside of a rectangle.
        wanted: Calls, each with the channel whose sum over all places is wanted, or None for all
            that it answers.

    Returns:
        Takes rectangles, (n, 2, 2) int, the first row and the one after the last, then the columns;
        and how many to compute at a time. Returns for each of `wanted` (n,), or (n, ...); a softmax
        at the end of `nodes` is skipped.
    """
    clean = _clean(nodes, image, filled, wanted)
    body, head = _compiled(clean, wanted)
    a_place = sum(np.prod(clean.values[v].shape) for v, unit in clean.pasted if unit is None)

    def of_rectangles(rectangles: np.ndarray, batch_size: int) -> list[np.ndarray]:
        order = _alike_together(clean, rectangles)
        # Large layers at the end, whose weights take longer to read than to apply, take more.
        together = max(batch_size, HEAD_VALUES // max(1, int(a_place)))
        results, waiting, count = [], [], 0
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            waiting.append(body(*_looked_up(clean, rectangles[chunk])))
            count += len(chunk)
            if count >= together or start + batch_size >= len(order):
                results.append(head([tf.concat(one, axis=0) for one in zip(*waiting, strict=True)]))
                waiting, count = [], 0
        back = np.argsort(order)
        return [np.concatenate(one)[back] for one in zip(*results, strict=True)]

    return of_rectangles


def _compiled(clean: _Clean, wanted) -> tuple[tf.types.experimental.PolymorphicFunction, ...]:
    """Returns the body and the head, each traced once, whatever the number and size of windows."""
    gathers = sum(len(node.inputs) for node in clean.parts.body if not _in_place(node))

    def spec(value: int, *shape):
        return tf.TensorSpec((*shape, clean.values[value].shape[-1]), clean.values[value].dtype)

    windows_and_indices = [
        [spec(v, None, None, None) for v in clean.begun],
        [tf.TensorSpec((None, None, None), tf.int32)] * (gathers + len(clean.pasted)),
    ]
    pasted = [
        spec(v, None, *clean.values[v].shape[:-1]) if unit is None else tf.TensorSpec((None,))
        for v, unit in clean.pasted
    ]

    @tf.function(input_signature=windows_and_indices)
    def body(begun, indices):
        return _pasted(clean, begun, indices)

    @tf.function(input_signature=[pasted])
    def head(maps):
        return _answers(clean, maps, wanted)

    return body, head


def _clean(nodes, image, filled, wanted) -> _Clean:
    parts = split_segments(nodes)
    answers = forward_to(nodes, image[None], nodes)
    values = {node.output: one[0] for node, one in zip(nodes, answers, strict=True)}
    inside = {0: filled}
    if parts.prefix:
        answers = forward_to(parts.prefix, filled[None], parts.prefix)
        for node, one in zip(parts.prefix, answers, strict=True):
            inside[node.output] = one[0].numpy()
    maps = {*inside, *(node.output for node in parts.body)}
    pasted = [(v, None) for v in sorted(maps & {v for node in parts.head for v in node.inputs})]
    pasted += [(node.output, unit) for node, unit in wanted if node.output in maps]
    values[0] = tf.constant(image)
    return _Clean(parts, values, inside, tuple(dict.fromkeys(pasted)))


def _reaches(
    clean: _Clean, rectangles: np.ndarray
) -> dict[int, tuple[AffectedRegion, AffectedRegion]]:
    """Returns what the rectangles reach of every map, rows and columns, by its number."""
    sides = clean.values[0].shape[:2]
    whole = tuple(AffectedRegion(*rectangles[:, axis].T, side) for axis, side in enumerate(sides))
    reaches = dict.fromkeys(clean.inside, whole)
    for node in clean.parts.body:
        reaches[node.output] = tuple(
            axis.through(look)
            for axis, look in zip(_below(node, reaches), window_of(node.layer), strict=True)
        )
    return reaches


def _below(node: Node, reaches) -> list[AffectedRegion]:
    return [
        reduce(AffectedRegion.joined, axis)
        for axis in zip(*(reaches[v] for v in node.inputs), strict=True)
    ]


def _alike_together(clean: _Clean, rectangles: np.ndarray) -> np.ndarray:
    """Returns an order in which rectangles follow each other whose windows end up alike in size."""
    rows, columns = _reaches(clean, rectangles)[clean.parts.body[-1].output]
    return np.lexsort((columns.end - columns.first, rows.end - rows.first))


def _looked_up(clean: _Clean, rectangles: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the windows that begin the body, and for every gather where its values come from."""
    reaches = _reaches(clean, rectangles)
    indices = []
    for node in clean.parts.body:
        if not _in_place(node):
            places = [
                axis.looked_at(look, below.side)
                for axis, look, below in zip(
                    reaches[node.output], window_of(node.layer), _below(node, reaches), strict=True
                )
            ]
            indices += [source_windows(reaches[v], *places) for v in node.inputs]
    for v, _ in clean.pasted:
        places = [np.tile(np.arange(axis.side), (len(rectangles), 1)) for axis in reaches[v]]
        indices.append(source_windows(reaches[v], *places))
    begun = [_begun(clean.values[v].numpy(), clean.inside[v], reaches[v]) for v in clean.begun]
    return begun, indices


def _begun(
    clean: np.ndarray, inside: np.ndarray, reaches: tuple[AffectedRegion, AffectedRegion]
) -> np.ndarray:
    """Returns the windows of the image itself, (n, k, l, c)."""
    down, across = (axis.start[:, None] + np.arange(axis.size) for axis in reaches)
    filled_rows, filled_columns = (
        (place >= axis.first[:, None]) & (place < axis.end[:, None])
        for place, axis in zip((down, across), reaches, strict=True)
    )
    filled = (filled_rows[:, :, None] & filled_columns[:, None, :])[..., None]
    rows, columns = down[:, :, None], across[:, None, :]
    return np.where(filled, inside[rows, columns], clean[rows, columns])


def _pasted(clean: _Clean, begun, indices) -> list[tf.Tensor]:
    """Recomputes the windows, and returns what is needed whole or summed."""
    values, indices = dict(zip(clean.begun, begun, strict=True)), iter(indices)
    for node in clean.parts.body:
        inputs = [values[v] for v in node.inputs]
        if _in_place(node):
            values[node.output] = node.layer(*inputs, training=False)
            continue
        padding = _padding(node.layer)
        index = [next(indices) for _ in inputs]
        looked_at = [
            _gathered(clean.values[v], one, i, padding)
            for v, one, i in zip(node.inputs, inputs, index, strict=True)
        ]
        values[node.output] = _looked(node.layer, looked_at, index[0] > 0)
    result = []
    for (v, unit), index in zip(clean.pasted, indices, strict=True):
        only = slice(None) if unit is None else slice(unit, unit + 1)
        whole = _gathered(clean.values[v][..., only], values[v][..., only], index)
        result.append(summed_activation(whole, None if unit is None else 0))
    return result


def _answers(clean: _Clean, pasted, wanted) -> list[tf.Tensor]:
    """Returns what is wanted, from what is needed whole or summed."""
    known = dict(zip(clean.pasted, pasted, strict=True))
    asked = [(node, unit) for node, unit in wanted if (node.output, unit) not in known]
    maps = {v: one for (v, unit), one in known.items() if unit is None}
    answers = forward_from(clean.parts.head, maps, [node for node, _ in asked])
    for (node, unit), one in zip(asked, answers, strict=True):
        known[node.output, unit] = summed_activation(one, unit)
    return [known[node.output, unit] for node, unit in wanted]


def summed_activation(values, unit: int | None):
    """Returns (n, ...) values, or the sum over all places of a map's channel, (n,) float32."""
    if unit is None:
        return values
    return tf.reduce_sum(tf.cast(values[..., unit], tf.float32), axis=(1, 2))


def _gathered(clean, fresh, index, padding: float = 0.0):
    """Returns the values at `index`, as `sources` numbers them, (n, k, l, c)."""
    channels = clean.shape[-1]
    every = [
        tf.fill((1, channels), tf.cast(padding, clean.dtype)),
        tf.reshape(clean, (-1, channels)),
        tf.reshape(fresh, (-1, channels)),
    ]
    return tf.gather(tf.concat(every, axis=0), index)


def _in_place(node: Node) -> bool:
    """Tells whether a node looks at one map place by place: its window is that of the map below."""
    return len(node.inputs) == 1 and _place_by_place(window_of(node.layer))


def _place_by_place(looks) -> bool:
    return all(
        (look.kernel, look.stride) == (1, 1) and look.padding in (None, (0, 0)) for look in looks
    )


def _padding(layer) -> float:
    """Returns what a layer reads beyond the border; of maxima, minus infinity never is one."""
    return float("-inf") if behaves_like(layer, _MAXIMA) else 0.0


def _looked(layer, maps, on_map):
    """Returns what a layer makes of all it looks at, (n, k, l, c) each, without padding.

    Args:
        layer: A layer of the body.
        maps: Its inputs.
        on_map: (n, k, l) bool, whether a place is on the map, not beyond its border.
    """
    if behaves_like(layer, [keras.layers.Conv2D]):
        kernel = ops.cast(layer.kernel, layer.compute_dtype)
        y = convolve(layer, ops.cast(maps[0], layer.compute_dtype), kernel, "valid")
        return layer.activation(y + ops.cast(layer.bias, y.dtype) if layer.use_bias else y)
    if behaves_like(layer, _MAXIMA):
        return tf.nn.max_pool2d(maps[0], layer.pool_size, layer.strides, "VALID")
    if behaves_like(layer, [keras.layers.AveragePooling2D]):
        # The mean of what is on the map.
        inside = tf.cast(on_map, maps[0].dtype)[..., None]
        mean, share = (
            tf.nn.avg_pool2d(one, layer.pool_size, layer.strides, "VALID")
            for one in (maps[0], inside)
        )
        return mean / share
    if behaves_like(layer, [LocalResponseNormalization]):
        # Its windows are cut at the border of what it is given: the border is cut off again.
        edge = layer.size // 2
        return layer(maps[0])[:, edge:-edge, edge:-edge]
    if behaves_like(layer, [keras.layers.ZeroPadding2D, keras.layers.Cropping2D]):
        return maps[0]
    return layer(maps, training=False)

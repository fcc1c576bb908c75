"""The nodes of a network by how incremental occlusion recomputes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from cnnkit.layers import SubtractMean
from cnnkit.models.graph import Node
from cnnkit.models.receptive_field import LayerWindow, behaves_like, window_of
from cnnkit.visualize.forward import is_softmax, require_windows


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


def split_segments(nodes: Sequence[Node]) -> Segments:
    """Divides the nodes of a network into segments."""
    pixels, maps = {0}, {0}
    prefix: list[Node] = []
    body: list[Node] = []
    head: list[Node] = []
    for node in nodes:
        has_windows = node.is_pure and not _mixes_positions(node.layer)
        windows = window_of(node.layer) if has_windows else None
        if windows and _is_pointwise(windows) and pixels.issuperset(node.inputs):
            pixels.add(node.output)
            prefix.append(node)
        elif (
            windows
            and windows[0].kernel
            and _is_translation_equivariant(node.layer)
            and maps.issuperset(node.inputs)
        ):
            body.append(node)
        else:
            head.append(node)
            continue
        maps.add(node.output)
    return Segments(tuple(prefix), tuple(body), tuple(head))


def works_in_place(node: Node) -> bool:
    """Returns True for a node with one input map whose window is a single position."""
    return len(node.inputs) == 1 and _is_pointwise(require_windows(node.layer))


def _is_pointwise(windows: Sequence[LayerWindow]) -> bool:
    return all(
        (window.kernel, window.stride) == (1, 1) and window.padding in (None, (0, 0))
        for window in windows
    )


def _mixes_positions(layer: keras.layers.Layer) -> bool:
    """Returns True for a softmax, which `window_of` takes for pointwise whatever its axis is."""
    return is_softmax(layer) or is_softmax(getattr(layer, "activation", None))


def _is_translation_equivariant(layer: keras.layers.Layer) -> bool:
    """Returns True for a layer with a window that does the same at every position of a map."""
    if behaves_like(layer, [SubtractMean]):
        return layer.mean.ndim == 1
    if behaves_like(layer, [keras.layers.PReLU]):
        return set(layer.shared_axes or ()) >= {1, 2}
    if behaves_like(layer, [keras.layers.BatchNormalization]):
        return layer.axis in (-1, 3)
    if behaves_like(layer, [keras.layers.Normalization]):
        return layer.axis is None or tuple(layer.axis) in ((-1,), (3,), ())
    return True

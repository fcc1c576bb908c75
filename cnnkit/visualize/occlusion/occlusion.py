"""Occlusion: what a network answers when a part of the image is covered (Zeiler & Fergus 2013)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from cnnkit._deprecation import renamed_argument
from cnnkit.errors import DataError, UsageError, unknown_name
from cnnkit.models.class_names import class_index
from cnnkit.models.graph import Graph, Node
from cnnkit.visualize.classifier import Classifier, as_classifier
from cnnkit.visualize.deconvnet.project import Projection, deconvnet
from cnnkit.visualize.forward import as_image_batch, check_supports_rule, check_weights, forward_to
from cnnkit.visualize.occlusion.incremental import (
    incremental_occlusion,
    split_segments,
    summed_activation,
)

METHODS = ("incremental", "plain")
EDGES = ("inside", "clip")
GRAY = 128


@dataclass(frozen=True)
class OcclusionMaps:
    """What a network answers while a square covers one place of an image after the other.

    The grids are (r, c), a value for every place of the square.

    Attributes:
        probability: Probability of the class `target`, float32.
        score: What the softmax takes for that class, its logit; without a softmax the probability.
        label: The most probable class, int64.
        activity: Sum of the feature map `unit` of `layer`, float32.
        rows: (r,) int, first row of the square.
        columns: (c,) int, its first column.
        square: (height, width); at an edge that is clipped, less of it is in the image.
        fill: (3,) float32, the color of the square.
        target: The class that is asked about.
        layer: Name of the layer whose map is watched.
        unit: The map.
        image_size: (h, w) of the image.
        clean_probability: The probability while nothing is covered.
        clean_score: The score then.
        clean_label: The class that is most probable then.
        clean_activity: The sum of the map then.
        projection: The map's strongest activation then, projected to the pixels; None where the
            deconvnet cannot go through a layer of the network.
        method: `"incremental"` or `"plain"`, how it was computed.
    """

    probability: np.ndarray
    score: np.ndarray
    label: np.ndarray
    activity: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    square: tuple[int, int]
    fill: np.ndarray
    target: int
    layer: str
    unit: int
    image_size: tuple[int, int]
    clean_probability: float
    clean_score: float
    clean_label: int
    clean_activity: float
    projection: Projection | None = field(repr=False)
    method: str

    def score_drop(self) -> np.ndarray:
        """Returns how much the score falls, (h, w): the mean over all squares that cover a pixel.

        Pixels that no square covers are NaN.
        """
        fall, covers = np.zeros((2, *self.image_size))
        for (r, c), score in np.ndenumerate(self.score):
            top, left = self.rows[r], self.columns[c]
            covered = slice(top, top + self.square[0]), slice(left, left + self.square[1])
            fall[covered] += self.clean_score - score
            covers[covered] += 1
        return np.divide(fall, covers, out=np.full_like(fall, np.nan), where=covers > 0)


@renamed_argument("label", "target")
def occlusion(
    model: keras.Model,
    image: np.ndarray,
    square: int | tuple[int, int] = 32,
    stride: int | tuple[int, int] = 8,
    fill: float | Sequence[float] = GRAY,
    method: str | None = None,
    batch_size: int = 32,
    target: int | str | None = None,
    layer: str | None = None,
    unit: int | None = None,
    *,
    edge: str = "inside",
) -> OcclusionMaps:
    """Covers one place of an image after the other, and records what the network answers.

    This is Zeiler & Fergus 2013, Fig. 7: (b) the activity of the map that is strongest in the
    uncovered image, (c) its projection, (d) the probability of a class, (e) the most probable
    class. The paper gives neither the size of the square nor its step.

    Most of what a network computes is the same for every place of the square. `"incremental"`
    keeps it and recomputes of every layer only the window that the square reaches; the result is
    that of `"plain"`, which passes every covered image through the network, up to rounding.

    Args:
        model: A network over classes, functional or sequential: logits, softmax or sigmoid.
        image: (h, w, 3), as the model takes it; RGB in 0..255 for ours.
        square: Side of the square, or (height, width).
        stride: Step from one place to the next, or (down, across).
        fill: Gray or color of the square, in the values of the image.
        method: `"incremental"`, `"plain"`, or None for incremental wherever the network has layers
            that look at windows.
        batch_size: Places that are computed at a time.
        target: The class that is asked about, its index or name; None is the most probable one.
        layer: Layer whose map is watched; None is the last one with a map.
        unit: The map; None is the one with the largest sum over the uncovered image.
        edge: `"inside"`: only whole squares; `"clip"`: the border that these leave is covered too,
            by squares that are cut.

    Raises:
        UsageError: If there is no such class, layer, map or method, the image does not fit, or the
            square is larger than it.
        DataError: If the map does not fire, or weights, pixels or answers are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import occlusion
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> seen = occlusion(model, image, square=16, stride=16, layer="conv1")
        >>> seen.probability.shape, seen.rows.tolist(), seen.method
        ((4, 4), [0, 16, 32, 48], 'incremental')
    """
    network = as_classifier(model)
    check_weights(network.nodes)
    [image] = as_image_batch(network.graph, _single(image))
    index = None if target is None else class_index(model, target)
    square, stride = _pair(square, "square"), _pair(stride, "stride")
    rows, columns = _places(image.shape, square, stride, edge)
    method = _method(method, network.nodes)
    if batch_size < 1:
        raise UsageError(
            "A batch holds one place or more", expected="1 or more", received=batch_size
        )
    color = _color(fill, image.shape[-1])
    watched, unit = _watched(network, image, layer, unit)

    sweep = incremental_occlusion if method == "incremental" else plain_occlusion
    filled = np.broadcast_to(color, image.shape)
    answer = sweep(network.nodes, image, filled, [(watched, unit), (network.nodes[-1], None)])
    rectangles = _rectangles(image.shape, rows, columns, square)
    activities, scores = answer(rectangles, batch_size)
    scores = scores.astype(np.float32)
    if not (np.isfinite(activities).all() and np.isfinite(scores).all()):
        raise DataError(
            "The network answers the covered image with values that are not finite",
            hint="Look at the image and at the weights",
        )
    # The last rectangle is empty.
    probabilities = network.probabilities(scores)
    labels = scores.argmax(axis=-1)
    index = int(labels[-1]) if index is None else index
    grid = len(rows), len(columns)
    return OcclusionMaps(
        probability=probabilities[:-1, index].reshape(grid),
        score=scores[:-1, index].reshape(grid),
        label=labels[:-1].reshape(grid),
        activity=activities[:-1].astype(np.float32).reshape(grid),
        rows=rows,
        columns=columns,
        square=square,
        fill=color,
        target=index,
        layer=watched.layer.name,
        unit=unit,
        image_size=image.shape[:2],
        clean_probability=float(probabilities[-1, index]),
        clean_score=float(scores[-1, index]),
        clean_label=int(labels[-1]),
        clean_activity=float(activities[-1]),
        projection=_projection(network.graph, image, watched, unit),
        method=method,
    )


def plain_occlusion(
    nodes: Sequence[Node],
    image: np.ndarray,
    filled: np.ndarray,
    wanted: Sequence[tuple[Node, int | None]],
) -> Callable[[np.ndarray, int], list[np.ndarray]]:
    """Returns a function of rectangles that passes every covered image through the network.

    Arguments and result are those of `cnnkit.visualize.occlusion.incremental.incremental_occlusion`, to which it is the
    reference.
    """

    @tf.function(input_signature=[tf.TensorSpec((None, *image.shape))])
    def answer(images):
        answers = forward_to(nodes, images, [node for node, _ in wanted])
        return [
            summed_activation(one, unit) for one, (_, unit) in zip(answers, wanted, strict=True)
        ]

    def of_rectangles(rectangles: np.ndarray, batch_size: int) -> list[np.ndarray]:
        results = []
        for start in range(0, len(rectangles), batch_size):
            batch = rectangles[start : start + batch_size]
            images = np.repeat(image[None], len(batch), axis=0)
            for covered, ((top, bottom), (left, right)) in zip(images, batch, strict=True):
                covered[top:bottom, left:right] = filled[top:bottom, left:right]
            results.append(answer(images))
        return [np.concatenate(one) for one in zip(*results, strict=True)]

    return of_rectangles


def _single(image: np.ndarray) -> np.ndarray:
    if np.ndim(image) != 3:
        raise UsageError(
            "One image is covered", expected="(h, w, channels)", received=np.shape(image)
        )
    return image


def _pair(value: int | tuple[int, int], name: str) -> tuple[int, int]:
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(pair) != 2 or any(one != int(one) or one < 1 for one in pair):
        raise UsageError(
            f"The {name} is a whole number of pixels",
            expected="one of 1 or more, or two of them",
            received=value,
        )
    return int(pair[0]), int(pair[1])


def _color(fill: float | Sequence[float], channels: int) -> np.ndarray:
    color = np.asarray(fill, np.float32)
    if color.shape not in ((), (channels,)) or not np.isfinite(color).all():
        raise UsageError(
            "The square has one color", expected=f"1 or {channels} numbers", received=fill
        )
    return np.broadcast_to(color, (channels,)).copy()


def _method(method: str | None, nodes: Sequence[Node]) -> str:
    if method not in (None, *METHODS):
        raise unknown_name("method", method, METHODS)
    if method == "plain" or split_segments(nodes).body:
        return method or "incremental"
    if method is None:
        return "plain"
    raise UsageError(
        "Nothing can be spared: no layer of the network is known to look at windows of the image",
        expected="convolutions and pooling after the image",
        received=f"{type(nodes[0].layer).__name__} {nodes[0].layer.name!r} first",
        hint='Take method="plain"',
    )


def _places(
    shape: tuple[int, ...], square: tuple[int, int], stride: tuple[int, int], edge: str
) -> tuple[np.ndarray, np.ndarray]:
    if edge not in EDGES:
        raise unknown_name("edge", edge, EDGES)
    if square[0] > shape[0] or square[1] > shape[1]:
        raise UsageError(
            "The square is larger than the image",
            expected=f"at most {shape[0]} x {shape[1]}",
            received=f"{square[0]} x {square[1]}",
        )
    rows, columns = (
        np.arange((side - size + (step - 1) * (edge == "clip")) // step + 1) * step
        for side, size, step in zip(shape, square, stride, strict=False)
    )
    return rows, columns


def _rectangles(
    shape: tuple[int, ...], rows: np.ndarray, columns: np.ndarray, square: tuple[int, int]
) -> np.ndarray:
    """Returns (r * c + 1, 2, 2): what each square covers, row by row, and last an empty one."""
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    ends = np.minimum(corners + square, shape[:2])
    return np.concatenate([np.stack([corners, ends], axis=-1), np.zeros((1, 2, 2), int)])


def _watched(
    network: Classifier, image: np.ndarray, layer: str | None, unit: int | None
) -> tuple[Node, int]:
    """Returns the layer whose map is watched, and the map."""
    answers = forward_to(network.nodes, image[None], network.nodes)
    maps = {c: m[0] for c, m in zip(network.nodes, answers, strict=True) if m.shape.rank == 4}
    if not maps:
        raise UsageError("The network has no map: no layer knows places")
    watched = list(maps)[-1] if layer is None else network.graph.node(layer)
    if watched not in maps:
        raise UsageError(
            f"Layer {layer!r} has no map on the way to the classes",
            expected=f"for example {list(maps)[-1].layer.name}",
        )
    sums = maps[watched].numpy().sum(axis=(0, 1), dtype=np.float64)
    strongest = unit is None
    unit = int(sums.argmax()) if strongest else unit
    if not 0 <= unit < len(sums):
        raise UsageError(
            f"Layer {watched.layer.name!r} has no unit {unit}",
            expected=f"0 to {len(sums) - 1}",
            received=unit,
        )
    if not maps[watched].numpy()[..., unit].any():
        if strongest:
            raise DataError(f"No unit of {watched.layer.name} fires on this image")
        raise DataError(
            f"Unit {unit} of {watched.layer.name} does not fire on this image",
            hint="Leave the unit out to take the strongest one",
        )
    return watched, unit


def _projection(graph: Graph, image: np.ndarray, watched: Node, unit: int) -> Projection | None:
    try:
        check_supports_rule(graph.ancestors(watched), "deconvnet")
    except UsageError:
        return None
    return deconvnet(graph, image, watched.layer.name, unit)[0]

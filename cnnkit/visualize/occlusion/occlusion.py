"""Occlusion sensitivity: a classifier's outputs while a square covers part of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import keras
import numpy as np
import tensorflow as tf

from cnnkit._deprecation import renamed_argument
from cnnkit._network_names import check_square
from cnnkit.errors import DataError, UsageError, unknown_name
from cnnkit.models.class_names import class_index
from cnnkit.models.graph import Graph, Node
from cnnkit.models.model_input import gray_level
from cnnkit.visualize.argument_checks import check_batch_size, check_whole_number, unit_indices
from cnnkit.visualize.classifier import Classifier, as_classifier, last_maps
from cnnkit.visualize.deconvnet.project import Projection, deconvnet
from cnnkit.visualize.forward import as_image_batch, check_weights, forward_to
from cnnkit.visualize.occlusion.affected_region import split_segments
from cnnkit.visualize.occlusion.incremental import (
    Wanted,
    incremental_occlusion,
    summed_activation,
)
from cnnkit.visualize.rule_support import check_supports_rule

METHODS = ("incremental", "plain")
EDGES = ("inside", "clip")
# The square goes this often into the shorter side of the image. Neither its size nor the step is in
# the paper.
SIDES = 7


@dataclass(frozen=True)
class OcclusionMaps:
    """A classifier's outputs while a square covers one place of an image after the other.

    The grids are (r, c): one value for every place of the square.

    Attributes:
        probability: Probability of the class `target`, float32.
        score: Logit of the class, the input of the softmax or the sigmoid.
        label: The most probable class, int64.
        activity: Sum of the feature map `unit` of `layer`, float32.
        rows: (r,) int, first row of the square.
        columns: (c,) int, first column of the square.
        square: (height, width); at a clipped edge less of it lies in the image.
        fill: (3,) float32, color of the square.
        target: Index of the class whose probability is recorded. A network with one output has
            the classes 0 (no) and 1 (yes).
        layer: Name of the layer whose feature map is recorded.
        unit: Index of the feature map.
        image_size: (h, w) of the image.
        clean_probability: `probability` of the uncovered image.
        clean_score: `score` of the uncovered image.
        clean_label: `label` of the uncovered image.
        clean_activity: `activity` of the uncovered image.
        projection: The feature map's strongest activation in the uncovered image, projected to the
            pixels; None if a layer does not support the deconvnet.
        method: `"incremental"` or `"plain"`, the method of computation.
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
        """Returns the mean drop of the score over all squares that cover a pixel, (h, w).

        Pixels that no square covers are NaN.
        """
        drop, covers = np.zeros((2, *self.image_size))
        for (r, c), score in np.ndenumerate(self.score):
            top, left = self.rows[r], self.columns[c]
            covered = slice(top, top + self.square[0]), slice(left, left + self.square[1])
            drop[covered] += self.clean_score - score
            covers[covered] += 1
        return np.divide(drop, covers, out=np.full_like(drop, np.nan), where=covers > 0)


@renamed_argument("label", "target")
def occlusion(
    model: keras.Model,
    image: np.ndarray,
    square: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    fill: float | Sequence[float] | None = None,
    method: str | None = None,
    batch_size: int = 32,
    target: int | str | None = None,
    layer: str | None = None,
    unit: int | None = None,
    *,
    edge: str = "inside",
) -> OcclusionMaps:
    """Covers one place of an image after the other, and records the classifier's outputs.

    This is Zeiler & Fergus 2013, Fig. 7: (b) the activity of the feature map that is strongest in
    the uncovered image, (c) its projection, (d) the probability of a class, (e) the most probable
    class. The paper gives neither the size of the square nor its stride.

    Most values in a network are the same for every place of the square. `"incremental"` keeps them
    and recomputes only the window of every layer that the square affects. Up to rounding, the
    result is that of `"plain"`, which passes every covered image through the network.

    Args:
        model: A classifier, functional or sequential, that ends in logits, a softmax or a sigmoid.
        image: (h, w, 3), as the model takes it; RGB in 0..255 for cnnkit models.
        square: Side of the square, or (height, width), in pixels; None takes a seventh of the
            shorter side of the image: 32 pixels of 224.
        stride: Step from one place to the next, or (down, across), in pixels; None takes a quarter
            of the square, or of its shorter side.
        fill: Gray value or color of the square, in the image's range of values; None takes the
            middle of the range that the model expects, or that the image has: 128, 0.5 or 0.
        method: `"incremental"`, `"plain"`, or None for incremental wherever the network has layers
            with known windows.
        batch_size: Places that are computed at a time.
        target: Index or name of the class; None takes the most probable class of the uncovered
            image.
        layer: Layer whose feature map is recorded; None takes the last maps on the way to the
            classes.
        unit: Index of the feature map; None takes the one with the largest sum over the uncovered
            image.
        edge: `"inside"` for whole squares only; `"clip"` covers the border that these leave too, by
            clipped squares.

    Raises:
        UsageError: If there is no such class, layer, feature map or method, the image does not fit,
            or the square is larger than it.
        DataError: If the feature map is zero everywhere, or weights, pixels or outputs are not
            finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import occlusion
        >>> model = zfnet(input_shape=(64, 64, 3), classes=5)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> maps = occlusion(model, image, square=16, stride=16, layer="conv1")
        >>> maps.probability.shape, maps.rows.tolist(), maps.method
        ((4, 4), [0, 16, 32, 48], 'incremental')
    """
    classifier = as_classifier(model)
    check_weights(classifier.nodes)
    [image] = as_image_batch(classifier.graph, _single_image(image))
    index = None if target is None else class_index(model, target)
    square = _pair(default_square(image.shape) if square is None else square, "square")
    stride = _pair(max(1, min(square) // 4) if stride is None else stride, "stride")
    rows, columns = _places(image.shape, square, stride, edge)
    method = _choose_method(method, classifier.nodes)
    check_batch_size(batch_size)
    color = _color(gray_level(model, image) if fill is None else fill, image.shape[-1])
    node, unit = _recorded_unit(classifier, image, layer, unit)

    # The last rectangle is empty: the uncovered image.
    rectangles = _rectangles(image.shape, rows, columns, square)
    sweep = incremental_occlusion if method == "incremental" else plain_occlusion
    filled = np.broadcast_to(color, image.shape)
    wanted = [(node, unit), (classifier.end, None)]
    activities, outputs = sweep(classifier.nodes, image, filled, wanted)(rectangles, batch_size)
    scores = classifier.class_logits(outputs).numpy()
    _check_finite_outputs(model.name, activities, scores)
    probabilities = classifier.probabilities(scores)
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
        layer=node.layer.name,
        unit=unit,
        image_size=image.shape[:2],
        clean_probability=float(probabilities[-1, index]),
        clean_score=float(scores[-1, index]),
        clean_label=int(labels[-1]),
        clean_activity=float(activities[-1]),
        projection=_projection(classifier.graph, image, node, unit),
        method=method,
    )


def plain_occlusion(
    nodes: Sequence[Node], image: np.ndarray, filled: np.ndarray, wanted: Sequence[Wanted]
) -> Callable[[np.ndarray, int], list[np.ndarray]]:
    """Returns a function of rectangles that passes every covered image through the network.

    It is the reference for `cnnkit.visualize.occlusion.incremental.incremental_occlusion`, whose
    arguments and result it shares.
    """

    @tf.function(input_signature=[tf.TensorSpec((None, *image.shape))], autograph=False)
    def forward(images: tf.Tensor) -> list[tf.Tensor]:
        ends = [node for node, _ in wanted]
        outputs = forward_to(nodes, images, ends, logits=[one for one in ends if one is nodes[-1]])
        return [
            summed_activation(one, channel)
            for one, (_, channel) in zip(outputs, wanted, strict=True)
        ]

    def occlude(rectangles: np.ndarray, batch_size: int) -> list[np.ndarray]:
        results = []
        for start in range(0, len(rectangles), batch_size):
            batch = rectangles[start : start + batch_size]
            images = np.repeat(image[None], len(batch), axis=0)
            for covered, ((top, bottom), (left, right)) in zip(images, batch, strict=True):
                covered[top:bottom, left:right] = filled[top:bottom, left:right]
            results.append(forward(images))
        return [np.concatenate(one) for one in zip(*results, strict=True)]

    return occlude


def _check_finite_outputs(name: str, activities: np.ndarray, scores: np.ndarray) -> None:
    if not (np.isfinite(activities).all() and np.isfinite(scores).all()):
        raise DataError(
            f"Model {name!r} has outputs for the covered image that are not finite",
            hint="Check the image and the weights",
        )


def default_square(shape: Sequence[int]) -> int:
    """Returns the side of the square for an image of a shape, (h, w, ...).

    Example:
        >>> default_square((224, 224, 3)), default_square((64, 80, 3)), default_square((8, 8, 1))
        (32, 9, 2)
    """
    return max(min(2, *shape[:2]), round(min(shape[:2]) / SIDES))


# Checks of the arguments.


def _single_image(image: np.ndarray) -> np.ndarray:
    if np.ndim(image) != 3:
        raise UsageError(
            "`image` must be a single image", expected="(h, w, channels)", received=np.shape(image)
        )
    return image


def _pair(value: int | tuple[int, int], name: str) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Iterable) else (value, value)
    if len(pair) != 2 or not all(isinstance(one, Integral) and one >= 1 for one in pair):
        raise UsageError(
            f"`{name}` must be a whole number of pixels, at least 1, or two of them",
            received=value,
        )
    return int(pair[0]), int(pair[1])


def _color(fill: float | Sequence[float], channels: int) -> np.ndarray:
    try:
        color = np.asarray(fill, np.float32)
    except (ValueError, TypeError):
        color = np.full((), np.nan)
    if color.shape not in ((), (channels,)) or not np.isfinite(color).all():
        raise UsageError(
            "`fill` must be one color", expected=f"1 or {channels} numbers", received=fill
        )
    return np.broadcast_to(color, (channels,)).copy()


def _choose_method(method: str | None, nodes: Sequence[Node]) -> str:
    if method not in (None, *METHODS):
        raise unknown_name("method", method, METHODS)
    if method == "plain" or split_segments(nodes).body:
        return method or "incremental"
    if method is None:
        return "plain"
    raise UsageError(
        '`method="incremental"` needs a layer with known windows after the image',
        expected="convolutions or pooling",
        received=f"{type(nodes[0].layer).__name__} {nodes[0].layer.name!r} first",
        hint='Use `method="plain"`',
    )


def _places(
    shape: tuple[int, ...], square: tuple[int, int], stride: tuple[int, int], edge: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first rows and the first columns of the square."""
    if edge not in EDGES:
        raise unknown_name("edge", edge, EDGES)
    check_square(square, shape)
    rows, columns = (
        np.arange((side - size + (step - 1) * (edge == "clip")) // step + 1) * step
        for side, size, step in zip(shape, square, stride, strict=False)
    )
    return rows, columns


def _rectangles(
    shape: tuple[int, ...], rows: np.ndarray, columns: np.ndarray, square: tuple[int, int]
) -> np.ndarray:
    """Returns (r * c + 1, 2, 2): the rectangle of each place, row by row, and an empty one last."""
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    ends = np.minimum(corners + square, shape[:2])
    return np.concatenate([np.stack([corners, ends], axis=-1), np.zeros((1, 2, 2), int)])


def _recorded_unit(
    classifier: Classifier, image: np.ndarray, layer: str | None, unit: int | None
) -> tuple[Node, int]:
    """Returns the node and the index of the feature map that is recorded."""
    nodes = classifier.nodes
    outputs = forward_to(nodes, image[None], nodes)
    maps = {
        node: one[0]
        for node, one in zip(nodes, outputs, strict=True)
        if len(node.tensors) == 1 and one.shape.rank == 4
    }
    if layer is None or not maps:
        shapes = {node: tuple(one.shape) for node, one in maps.items()}
        chosen = last_maps(classifier, shapes, pooled=True)
    else:
        chosen = classifier.graph.node(layer)
    if chosen not in maps:
        raise UsageError(
            f"Layer {layer!r} has no feature map on the way to the classes",
            expected=f"for example {list(maps)[-1].layer.name}",
        )
    name = chosen.layer.name
    values = maps[chosen].numpy()
    sums = values.sum(axis=(0, 1), dtype=np.float64)
    if unit is not None:
        check_whole_number("unit", unit, least=None)
    [index] = unit_indices(int(sums.argmax()) if unit is None else unit, len(sums), name)
    if not values[..., index].any():
        if unit is None:
            raise DataError(f"No unit of {name} fires on this image")
        raise DataError(
            f"Unit {index} of {name} does not fire on this image",
            hint="Leave the unit out to take the strongest one",
        )
    return chosen, index


def _projection(graph: Graph, image: np.ndarray, node: Node, unit: int) -> Projection | None:
    try:
        check_supports_rule(graph.ancestors(node), "deconvnet")
    except UsageError:
        return None
    return deconvnet(graph, image, node.layer.name, unit)[0]

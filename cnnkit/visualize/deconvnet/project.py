"""The deconvnet: what in an image made a unit fire (Zeiler & Fergus 2013, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import DataError, UsageError
from cnnkit.layers import backward_rule
from cnnkit.models.graph import Graph, Node, build_graph
from cnnkit.models.receptive_field import Box, receptive_field
from cnnkit.visualize.deconvnet.crop import CropRegion, crop_for_unit, forward_crop
from cnnkit.visualize.forward import (
    as_image_batch,
    check_supports_rule,
    check_weights,
    forward_pass,
    validate_position,
)


@dataclass(frozen=True)
class Projection:
    """One unit of one image, projected down to the pixels.

    Attributes:
        layer: Name of the layer.
        unit: Feature map of a convolution or pooling layer, or unit of a dense layer.
        image: Index of the image among those that were given.
        position: (row, column) in the feature map, () in a dense layer.
        activation: What the unit answered there.
        projection: (h, w, 3) float32, may be negative: pixel space is not rectified.
        rule: The backward rule.
        box: Exactly the pixels that the unit sees; elsewhere the projection is zero.
        unclipped: What it would see of an endless image: the same size for all units of a layer.
    """

    layer: str
    unit: int
    image: int
    position: tuple[int, ...]
    activation: float
    projection: np.ndarray
    rule: str
    box: Box
    unclipped: Box

    @property
    def position_text(self) -> str:
        """The position in words, empty in a dense layer."""
        return " at row {}, column {}".format(*self.position) if self.position else ""


def deconvnet(
    model: keras.Model | Graph,
    images: np.ndarray,
    layer: str,
    unit: int | Sequence[int] | None = None,
    position: tuple[int, int] | None = None,
    *,
    rule: str = "deconvnet",
    batch_size: int = 16,
) -> list[Projection]:
    """Projects single activations back to the pixels.

    All other activations of the layer are set to zero and the one to 1; on the way down, layer by
    layer, values go to where the maximum of their pooling window was (windows that share a maximum
    add), the signal is rectified, and the transposed filters are applied. Biases are left out and
    normalization is passed through. The model is left as it was.

    Args:
        model: A functional or sequential model of convolutions, dense layers, ReLUs (cnnkit's,
            Keras's, or fused into a layer), pooling, normalization, padding, sums and
            concatenations: those of `cnnkit.models`, keras.applications.VGG16, ResNets.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them; RGB in 0..255 for ours.
        layer: Name of a layer. At a softmax, fused or not, the pass starts from the logits.
        unit: One unit, several, or None for the strongest one of each image.
        position: (row, column) in the feature map; None is where the unit is strongest, the first
            in row-major order among equals.
        rule: `"deconvnet"`, `"guided"` (Springenberg et al. 2015) or `"gradient"`.
        batch_size: Projections that are computed at a time.

    Returns:
        One `Projection` for every image and unit, image by image.

    Raises:
        UsageError: If the layer, the unit, the position or the rule does not exist, the images do
            not fit, or a layer on the way cannot follow the rule.
        DataError: If pixels or activations are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import alexnet
        >>> from cnnkit.visualize import deconvnet
        >>> model = alexnet(input_shape=(64, 64, 3), classes=10, initializer="glorot")
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> deconvnet(model, image, "conv5", unit=7)[0].projection.shape
        (64, 64, 3)
    """
    graph = build_graph(model)
    nodes = graph.ancestors(graph.node(layer))
    with backward_rule(rule):
        check_supports_rule(nodes, rule)
    check_weights(nodes)
    images = as_image_batch(graph, images)
    chosen = []
    for start in range(0, len(images), batch_size):
        maps = forward_pass(nodes, tf.constant(images[start : start + batch_size]))
        for i, values in enumerate(keras.ops.convert_to_numpy(maps), start=start):
            _check_finite(values, i, layer)
            chosen += [(i, *_place(values, u, position)) for u in _units(values, unit, layer)]

    places = [(i, *place) for i, place, _ in chosen]
    results = _project_places(graph, nodes, images, layer, places, rule, batch_size)
    return [
        replace(result, activation=activation)
        for result, (*_, activation) in zip(results, chosen, strict=True)
    ]


def project(
    model: keras.Model | Graph,
    images: np.ndarray,
    layer: str,
    places: Sequence[tuple[int, ...]],
    *,
    rule: str = "deconvnet",
    batch_size: int = 16,
) -> list[Projection]:
    """Projects chosen activations; `deconvnet` chooses them and says the rest.

    A unit that sees no border of the image is projected through what it sees alone, for the same
    result in a fraction of the time: see `cnnkit.visualize.deconvnet.crop`.

    Args:
        model: As there.
        images: (n, h, w, 3), as the model takes them.
        layer: Name of a layer.
        places: For every projection the image's index, then where in the layer's output: (image,
            row, column, unit), or (image, unit) in a dense layer.
        rule: As there.
        batch_size: Projections that are computed at a time.

    Raises:
        UsageError: As there.
        DataError: As there.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import project
        >>> images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
        >>> model = zfnet(input_shape=(64, 64, 3), include_top=False)
        >>> [one.box.top for one in project(model, images, "conv1", [(0, 2, 3, 5), (1, 9, 9, 5)])]
        [4, 18]
    """
    graph = build_graph(model)
    nodes = graph.ancestors(graph.node(layer))
    with backward_rule(rule):
        check_supports_rule(nodes, rule)
    images = as_image_batch(graph, images)
    return _project_places(graph, nodes, images, layer, places, rule, batch_size)


def _project_places(
    graph: Graph,
    nodes: Sequence[Node],
    images: np.ndarray,
    layer: str,
    places: Sequence[tuple[int, ...]],
    rule: str,
    batch_size: int,
) -> list[Projection]:
    """Projects places of the last of `nodes`, after all checks: see `project`."""
    field = receptive_field(graph, layer, images.shape[1:3])
    cuts = [crop_for_unit(graph, nodes, where, images.shape[1:3]) for _, *where, _ in places]
    results: dict[int, Projection] = {}
    for inside in (False, True):
        numbers = [n for n, cut in enumerate(cuts) if (cut is not None) == inside]
        for start in range(0, len(numbers), batch_size):
            part = numbers[start : start + batch_size]
            chosen = [places[n] for n in part]
            if inside:
                scores, pixels = _project_cut([cuts[n] for n in part], images, chosen, rule)
            else:
                scores, pixels = _project(nodes, images, chosen, rule)
            for n, score, projection in zip(part, scores, pixels, strict=True):
                i, *where, unit = places[n]
                # A rectifier may turn NaN into zero on the way up: on the way down it shows.
                _check_finite(projection, i, layer)
                position = tuple(where)
                results[n] = Projection(
                    layer=layer,
                    unit=unit,
                    image=i,
                    position=position,
                    activation=float(score),
                    projection=projection,
                    rule=rule,
                    box=field.box(position),
                    unclipped=field.unclipped(position),
                )
    return [results[n] for n in range(len(places))]


def _check_finite(values: np.ndarray, image: int, layer: str) -> None:
    if not np.isfinite(values).all():
        raise DataError(
            f"Layer {layer!r} answers image {image} with values that are not finite",
            hint="Look at the image and at the weights up to that layer",
        )


def _units(values: np.ndarray, unit: int | Sequence[int] | None, layer: str) -> list[int]:
    count = values.shape[-1]
    if unit is None:
        return [int(np.argmax(values.reshape(-1, count).max(axis=0)))]
    units = [unit] if isinstance(unit, int | np.integer) else list(unit)
    for one in units:
        if not 0 <= one < count:
            raise UsageError(
                f"Layer {layer!r} has no unit {one}", expected=f"0 to {count - 1}", received=one
            )
    return [int(one) for one in units]


def _place(
    values: np.ndarray, unit: int, position: tuple[int, int] | None
) -> tuple[tuple[int, ...], float]:
    """Returns where in the layer's output the unit is looked at, (..., unit), and its value."""
    spatial = values.shape[:-1]
    if position is None:
        where = np.unravel_index(int(np.argmax(values[..., unit])), spatial) if spatial else ()
        position = tuple(int(index) for index in where)
    place = (*validate_position(position, spatial), unit)
    return place, float(values[place])


def _project(
    nodes: Sequence[Node], images: np.ndarray, places: Sequence[tuple[int, ...]], rule: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the activations at the places, and their projections (len(places), h, w, 3)."""
    index = [(row, *place[1:]) for row, place in enumerate(places)]
    pixels = images[[place[0] for place in places]]
    return _gradient(lambda shown: forward_pass(nodes, shown), pixels, index, rule)


def _project_cut(
    cuts: Sequence[CropRegion], images: np.ndarray, places: Sequence[tuple[int, ...]], rule: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same of units that see no border, each with its own cut."""
    index = [(row, 0, 0, place[-1]) for row, place in enumerate(places)]
    seen = [(place[0], *cut.box.slices) for cut, place in zip(cuts, places, strict=True)]
    pixels = np.stack([images[one] for one in seen])
    # What one of them needs, all need, elsewhere.
    scores, parts = _gradient(lambda shown: forward_crop(cuts[0], shown), pixels, index, rule)
    projections = np.zeros((len(places), *images.shape[1:]), np.float32)
    for projection, (_, *slices), part in zip(projections, seen, parts, strict=True):
        projection[tuple(slices)] = part
    return scores, projections


def _gradient(up, pixels: np.ndarray, index: Sequence[tuple[int, ...]], rule: str):
    """Returns what `up` makes of the pixels at the index, and its gradient by the rule."""
    shown = tf.constant(pixels)
    with backward_rule(rule), tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(shown)
        # Images do not interact, so the gradient of the sum holds every image's own.
        scores = tf.gather_nd(up(shown), tf.constant(index))
    return scores.numpy(), tape.gradient(scores, shown).numpy()

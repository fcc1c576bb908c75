"""The deconvnet: projections of single activations to the pixels.

Zeiler & Fergus 2013, section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from cnnkit._pixels import center_on_gray
from cnnkit.data.image_url import pictures_html
from cnnkit.layers import backward_rule
from cnnkit.models.graph import Graph, Node, build_graph
from cnnkit.models.layer_window import node_windows
from cnnkit.models.receptive_field import Box, ReceptiveField, receptive_field
from cnnkit.visualize.argument_checks import check_batch_size, unit_indices, validate_position
from cnnkit.visualize.deconvnet.crop import CropRegion, crop_for_unit, forward_crop
from cnnkit.visualize.forward import as_image_batch, check_weights, forward_pass, non_finite_error
from cnnkit.visualize.rule_support import check_supports_rule


@dataclass(frozen=True)
class Projection:
    """One activation of one image, projected to the pixels.

    Attributes:
        layer: Name of the layer.
        unit: Feature map of a convolution or pooling layer, or unit of a dense layer.
        image: Index of the image in the input batch.
        position: (row, column) in the feature map, () in a dense layer.
        activation: The activation.
        projection: (h, w, 3) float32, signed: the pixels are not rectified.
        rule: The backward rule.
        box: Receptive field of the unit within the image; the projection is zero elsewhere. It is
            the whole image if the windows of a layer below are not known.
        unclipped: Receptive field without the image's borders: the same size for all units of a
            layer.
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

    def _repr_html_(self) -> str:
        """Return the projection, and the receptive field of the unit in it, for a notebook."""
        pixels = center_on_gray(self.projection)
        pictures = [(pixels, "gray is 0")]
        if pixels[self.box.slices].shape != pixels.shape:
            pictures.append((pixels[self.box.slices], "its receptive field"))
        return pictures_html(
            f"{self.rule}, {self.layer} unit {self.unit}, activation {self.activation:.3g}"
            f"{self.position_text}",
            pictures,
        )

    @property
    def position_text(self) -> str:
        """The position as text, empty in a dense layer."""
        return " at row {}, column {}".format(*self.position) if self.position else ""


def deconvnet(
    model: keras.Model | Graph,
    images: np.ndarray,
    layer: str,
    unit: int | Sequence[int] | None = None,
    position: tuple[int, ...] | None = None,
    *,
    rule: str = "deconvnet",
    batch_size: int = 16,
) -> list[Projection]:
    """Projects single activations to the pixels.

    The activation is set to 1 and all others of the layer to 0. From layer to layer down to the
    image, values move to the maximum of their pooling window (windows that share a maximum add up),
    the signal is rectified, and the transposed filters are applied. Biases are left out, and
    normalization is skipped. The model is not changed.

    Args:
        model: A functional or sequential model of convolutions, dense layers, ReLUs (cnnkit's,
            Keras's, or fused into a layer), pooling, normalization, padding, sums and
            concatenations: those of `cnnkit.models`, keras.applications.VGG16, ResNets.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them; RGB in 0..255 for cnnkit models.
        layer: Name of a layer. At a softmax, fused or not, the projection starts from the logits.
        unit: One unit, several, or None for the strongest one of each image.
        position: (row, column) in the feature map; None takes the unit's strongest position, the
            first in row-major order among equals.
        rule: `"deconvnet"`, `"guided"` (Springenberg et al. 2015) or `"gradient"`.
        batch_size: Projections that are computed at a time.

    Returns:
        One `Projection` for every image and unit, image by image.

    Raises:
        UsageError: If the layer, the unit, the position or the rule does not exist, the images do
            not fit, or a layer below does not support the rule.
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
    check_projection(graph, [layer], rule)
    check_weights(nodes)
    check_batch_size(batch_size)
    images = as_image_batch(graph, images)
    selected: list[tuple[tuple[int, ...], float]] = []
    for start in range(0, len(images), batch_size):
        outputs = forward_pass(nodes, tf.constant(images[start : start + batch_size]))
        for i, values in enumerate(keras.ops.convert_to_numpy(outputs), start=start):
            if not np.isfinite(values).all():
                raise non_finite_error(layer, i)
            for one in _units(values, unit, layer):
                index = _activation_index(values, one, position)
                selected.append(((i, *index), float(values[index])))

    indices = [index for index, _ in selected]
    results = _project_indices(graph, nodes, images, layer, indices, rule, batch_size)
    return [
        replace(result, activation=activation)
        for result, (_, activation) in zip(results, selected, strict=True)
    ]


def check_projection(model: keras.Model | Graph, layers: Sequence[str], rule: str) -> None:
    """Checks that units of layers can be projected by a rule: before a search for them.

    Raises:
        UsageError: If a layer or the rule does not exist, or a layer below does not support the
            rule.
    """
    graph = build_graph(model)
    for layer in layers:
        with backward_rule(rule):
            check_supports_rule(graph.ancestors(graph.node(layer)), rule)


def _units(values: np.ndarray, unit: int | Sequence[int] | None, layer: str) -> list[int]:
    count = values.shape[-1]
    if unit is None:
        return [int(np.argmax(values.reshape(-1, count).max(axis=0)))]
    return unit_indices(unit, count, layer)


def _activation_index(
    values: np.ndarray, unit: int, position: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Returns the index of a unit's activation in the layer's output, (..., unit)."""
    spatial = values.shape[:-1]
    if position is not None:
        return (*validate_position(position, spatial), unit)
    strongest = np.unravel_index(int(np.argmax(values[..., unit])), spatial) if spatial else ()
    return (*(int(index) for index in strongest), unit)


def project(
    model: keras.Model | Graph,
    images: np.ndarray,
    layer: str,
    indices: Sequence[tuple[int, ...]],
    *,
    rule: str = "deconvnet",
    batch_size: int = 16,
) -> list[Projection]:
    """Projects the activations at given indices of a layer's output.

    See `deconvnet`, which selects the activations. A unit whose receptive field does not touch the
    image's border is projected through a crop, which gives the same result in a fraction of the
    time: see `cnnkit.visualize.deconvnet.crop`.

    Args:
        model: A functional or sequential model, as `deconvnet` takes it.
        images: (n, h, w, 3), as the model takes them.
        layer: Name of a layer.
        indices: An index into the layer's output for every projection: (image, row, column, unit),
            or (image, unit) in a dense layer.
        rule: `"deconvnet"`, `"guided"` or `"gradient"`.
        batch_size: Projections that are computed at a time.

    Returns:
        One `Projection` for every index.

    Raises:
        UsageError: If the layer or the rule does not exist, the images do not fit, or a layer below
            does not support the rule.
        DataError: If pixels or projections are not finite.

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
    check_projection(graph, [layer], rule)
    check_batch_size(batch_size)
    images = as_image_batch(graph, images)
    return _project_indices(graph, nodes, images, layer, indices, rule, batch_size)


def _project_indices(
    graph: Graph,
    nodes: Sequence[Node],
    images: np.ndarray,
    layer: str,
    indices: Sequence[tuple[int, ...]],
    rule: str,
    batch_size: int,
) -> list[Projection]:
    """Projects activations of the last of `nodes`, after all checks: see `project`."""
    sides = images.shape[1:3]
    whole = Box(0, 0, *sides)
    field: ReceptiveField | None
    regions: list[CropRegion | None]
    if all(node_windows(node) is not None for node in nodes):
        field = receptive_field(graph, layer, sides)
        # Thousands of units share the few positions of a small map.
        of_position: dict[tuple[int, ...], CropRegion | None] = {}
        for _, *position, _ in indices:
            if (at := tuple(position)) not in of_position:
                of_position[at] = crop_for_unit(graph, nodes, at, sides)
        regions = [of_position[tuple(position)] for _, *position, _ in indices]
    else:
        field, regions = None, [None] * len(indices)
    results: dict[int, Projection] = {}
    for cropped in (False, True):
        numbers = [n for n, region in enumerate(regions) if (region is not None) == cropped]
        for start in range(0, len(numbers), batch_size):
            batch = numbers[start : start + batch_size]
            selected = [indices[n] for n in batch]
            crops = [region for n in batch if (region := regions[n]) is not None]
            if crops:
                scores, pixels = _project_crops(crops, images, selected, rule)
            else:
                scores, pixels = _project_images(nodes, images, selected, rule)
            for n, score, projection in zip(batch, scores, pixels, strict=True):
                i, *position, unit = indices[n]
                # In the forward pass a ReLU may turn NaN into zero; the gradient shows it.
                if not np.isfinite(projection).all():
                    raise non_finite_error(layer, i)
                results[n] = Projection(
                    layer=layer,
                    unit=unit,
                    image=i,
                    position=tuple(position),
                    activation=float(score),
                    projection=projection,
                    rule=rule,
                    box=field.box(tuple(position)) if field else whole,
                    unclipped=field.unclipped(tuple(position)) if field else whole,
                )
    return [results[n] for n in range(len(indices))]


def _project_images(
    nodes: Sequence[Node], images: np.ndarray, indices: Sequence[tuple[int, ...]], rule: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns activations and their projections, (len(indices), h, w, 3)."""
    rows = [(row, *index[1:]) for row, index in enumerate(indices)]
    pixels = images[[index[0] for index in indices]]
    return _gradient(lambda batch: forward_pass(nodes, batch), pixels, rows, rule)


def _project_crops(
    regions: Sequence[CropRegion],
    images: np.ndarray,
    indices: Sequence[tuple[int, ...]],
    rule: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns activations and projections of units whose receptive field touches no border."""
    rows = [(row, 0, 0, index[-1]) for row, index in enumerate(indices)]
    crops = [(index[0], *region.box.slices) for region, index in zip(regions, indices, strict=True)]
    pixels = np.stack([images[crop] for crop in crops])
    # The regions differ by a shift only, so one of them serves all crops.
    scores, gradients = _gradient(lambda batch: forward_crop(regions[0], batch), pixels, rows, rule)
    projections = np.zeros((len(indices), *images.shape[1:]), np.float32)
    for projection, (_, *slices), gradient in zip(projections, crops, gradients, strict=True):
        projection[tuple(slices)] = gradient
    return scores, projections


def _gradient(
    forward: Callable[[tf.Tensor], tf.Tensor],
    pixels: np.ndarray,
    indices: Sequence[tuple[int, ...]],
    rule: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values of `forward` at the indices, and their gradients by the rule."""
    batch = tf.constant(pixels)
    with backward_rule(rule), tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(batch)
        # Images do not interact, so the gradient of the sum holds every image's own gradient.
        scores = tf.gather_nd(forward(batch), tf.constant(indices))
    return scores.numpy(), tape.gradient(scores, batch).numpy()

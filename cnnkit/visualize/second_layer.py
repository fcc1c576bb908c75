"""First- and second-layer features of a model (Zeiler & Fergus 2013, Fig. 6 (b) to (e))."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from cnnkit.data import Dataset, Split
from cnnkit.models.graph import build_graph
from cnnkit.models.layer_window import node_windows
from cnnkit.models.receptive_field import ReceptiveField, receptive_field
from cnnkit.visualize.deconvnet.project import check_projection
from cnnkit.visualize.filters import Filters, filters
from cnnkit.visualize.top9 import UnitExamples, project_top, sample_units
from cnnkit.visualize.top_activations import find_top_activations


@dataclass(frozen=True)
class SecondLayerFilters:
    """The filters of a model's first layer and examples of its second-layer units.

    Attributes:
        model: Name of the model.
        filters: Filters of the first layer.
        first_dead_units: Units of the first layer that fire for no image.
        layer: Name of the second layer.
        units: Number of units in the second layer.
        second_dead_units: Units of the second layer that fire for no image.
        receptive_field: Receptive field of the second layer's units; its `stride` is the distance
            between neighboring units, in pixels. None if the windows of a layer are not known.
        examples: The strongest activation of some units of the second layer.
    """

    model: str
    filters: Filters
    first_dead_units: tuple[int, ...]
    layer: str
    units: int
    second_dead_units: tuple[int, ...]
    receptive_field: ReceptiveField | None
    examples: tuple[UnitExamples, ...]


def second_layer_filters(
    model: keras.Model,
    source: Dataset | Split | np.ndarray,
    layer: str = "conv2",
    *,
    units: Sequence[int] | None = None,
    count: int = 16,
    seed: int = 0,
    rule: str = "deconvnet",
    image_size: int | None = None,
    batch_size: int = 16,
) -> SecondLayerFilters:
    """Projects second-layer units of a model, and counts dead units in the first two layers.

    Zeiler & Fergus saw many dead filters and few middle frequencies in AlexNet's first layer, and
    aliasing from its stride of 4 in the second layer. So their own first layer has 7 x 7 windows
    at a stride of 2. Call this function for both models and compare.

    Args:
        model: A functional or sequential model, as `cnnkit.visualize.deconvnet` takes it.
        source: A split, a dataset (its `test` split), or images (n, h, w, 3) as the model takes
            them.
        layer: Name of the second layer.
        units: Units of the second layer; None samples `count` of those that fire.
        count: Number of units to sample.
        seed: Seed of the sample.
        rule: The backward rule: `"deconvnet"`, `"guided"` or `"gradient"`.
        image_size: Side of a dataset's images, for a model that takes images of any size.
        batch_size: Images, and projections, at a time.

    Raises:
        UsageError: If a layer or a unit does not exist, or the model has no filters over colors.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import second_layer_filters
        >>> images = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3))
        >>> model = zfnet(input_shape=(64, 64, 3), include_top=False)
        >>> found = second_layer_filters(model, images)
        >>> found.receptive_field.size, found.receptive_field.stride, found.units
        ((27, 27), (8, 8), 256)
    """
    first = filters(model)
    graph = build_graph(model)
    check_projection(graph, [layer], rule)
    found = find_top_activations(
        graph, source, [first.layer, layer], 1, image_size=image_size, batch_size=batch_size
    )
    first_dead, second_dead = (
        tuple(np.flatnonzero(found[name].dead).tolist()) for name in (first.layer, layer)
    )
    if units is None:
        alive = np.flatnonzero(~found[layer].dead)
        units = [int(alive[i]) for i in sample_units(len(alive), count, seed)]
    examples = project_top(
        graph, source, found[layer], units, rule=rule, image_size=image_size, batch_size=batch_size
    )
    sides = (image_size, image_size) if image_size else None
    if sides is None and isinstance(source, np.ndarray):
        sides = source.shape[1:3]
    nodes = graph.ancestors(graph.node(layer))
    known = all(node_windows(node) is not None for node in nodes)
    return SecondLayerFilters(
        model=model.name,
        filters=first,
        first_dead_units=first_dead,
        layer=layer,
        units=len(found[layer].values),
        second_dead_units=second_dead,
        examples=tuple(examples),
        receptive_field=receptive_field(graph, layer, sides) if known else None,
    )

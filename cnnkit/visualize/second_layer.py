"""What a first layer does to the second one (Zeiler & Fergus 2013, Fig. 6 (b) to (e))."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from cnnkit.data import Dataset, Split
from cnnkit.models.graph import build_graph
from cnnkit.models.receptive_field import ReceptiveField, receptive_field
from cnnkit.visualize.filters import Filters, filters
from cnnkit.visualize.top9 import UnitExamples, project_top, sample_units
from cnnkit.visualize.top_activations import find_top_activations


@dataclass(frozen=True)
class SecondLayerFilters:
    """The first two layers of a network.

    Attributes:
        model: Name of the network.
        filters: The kernels of its first layer.
        first_dead_units: Units of the first layer that fire for no image.
        layer: Name of the second layer.
        units: Its feature maps.
        second_dead_units: Those of them that fire for no image.
        receptive_field: What its units see; its `stride` is how finely they are placed over the image.
        examples: The strongest activation of some of the others.
    """

    model: str
    filters: Filters
    first_dead_units: tuple[int, ...]
    layer: str
    units: int
    second_dead_units: tuple[int, ...]
    receptive_field: ReceptiveField
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
    """Projects a network's second layer and counts what is dead in the first two.

    Zeiler & Fergus saw in AlexNet's first layer many dead filters and few middle frequencies, and
    in its second one patterns of aliasing from the first one's stride of 4; so theirs has 7 x 7
    windows at a stride of 2. Call this for both and compare.

    Args:
        model: As `cnnkit.visualize.deconvnet.project` takes it.
        source: A split, a dataset (its `test` split), or images (n, h, w, 3) as the model takes
            them.
        layer: Name of the second layer.
        units: Its feature maps; None draws `count` of those that fire.
        count: Units to draw.
        seed: Of the draw.
        rule: The backward rule.
        image_size: Side of a dataset's images, for a model that takes images of any size.
        batch_size: Images, and projections, at a time.

    Raises:
        UsageError: If a layer or a unit does not exist, or the model has no kernels over colors.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import second_layer_filters
        >>> images = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3))
        >>> seen = second_layer_filters(zfnet(input_shape=(64, 64, 3), include_top=False), images)
        >>> seen.receptive_field.size, seen.receptive_field.stride, seen.units
        ((27, 27), (8, 8), 256)
    """
    kernels = filters(model)
    graph = build_graph(model)
    found = find_top_activations(
        graph, source, [kernels.layer, layer], 1, image_size=image_size, batch_size=batch_size
    )
    first, second = (np.flatnonzero(found[name].dead).tolist() for name in (kernels.layer, layer))
    if units is None:
        alive = np.flatnonzero(~found[layer].dead)
        units = [int(alive[i]) for i in sample_units(len(alive), count, seed)]
    options = {"rule": rule, "image_size": image_size, "batch_size": batch_size}
    shown = tuple(project_top(graph, source, found[layer], units, **options))
    sides = (image_size, image_size) if image_size else None
    if sides is None and isinstance(source, np.ndarray):
        sides = source.shape[1:3]
    return SecondLayerFilters(
        model=model.name,
        filters=kernels,
        first_dead_units=tuple(first),
        layer=layer,
        units=len(found[layer].values),
        second_dead_units=tuple(second),
        receptive_field=receptive_field(graph, layer, sides),
        examples=shown,
    )

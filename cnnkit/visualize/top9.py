"""The nine strongest activations of a feature map, projected (Zeiler & Fergus 2013, Fig. 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from cnnkit.data import Augmentation, Dataset, Split, batches
from cnnkit.errors import DataError, UsageError
from cnnkit.models.graph import Graph, build_graph
from cnnkit.models.receptive_field import Box
from cnnkit.visualize.deconvnet.project import Projection, project
from cnnkit.visualize.top_activations import TopActivations, find_top_activations

# How far an activation may be from the one that the search found, of its size.
TOLERANCE = 1e-3
GRAY = 128


@dataclass(frozen=True)
class UnitExamples:
    """What excites one unit most.

    Attributes:
        layer: Name of the layer.
        unit: The feature map.
        projections: One for each of the strongest images, strongest first; their `image` is an
            index into the dataset. Empty for a unit that fires for none.
        patches: What the unit sees of those images, (n, h, w, 3) float32, gray beyond the border.
    """

    layer: str
    unit: int
    projections: tuple[Projection, ...]
    patches: np.ndarray


def top9(
    model: keras.Model | Graph,
    source: Dataset | Split | np.ndarray,
    layers: Sequence[str],
    k: int = 9,
    *,
    units: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    rule: str = "deconvnet",
    image_size: int | None = None,
    batch_size: int = 16,
    found: Mapping[str, TopActivations] | None = None,
) -> dict[str, list[UnitExamples]]:
    """Finds the images that excite units most, and projects each one's activation.

    The dataset is read once, and the winners again.

    Args:
        model: As `cnnkit.visualize.deconvnet.project` takes it.
        source: A split, a dataset (its `test` split), or images (n, h, w, 3) as the model takes
            them.
        layers: Names of layers.
        k: Images for each unit.
        units: Feature maps of every layer, or by layer; None is all of them.
        rule: The backward rule.
        image_size: Side of a dataset's images, for a model that takes images of any size.
        batch_size: Images, and projections, at a time.
        found: What `strongest` returned for this source, to spare the search.

    Raises:
        UsageError: If a layer or a unit does not exist.
        DataError: If an activation is another than the search found.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import top9
        >>> images = np.random.default_rng(0).uniform(0, 255, (6, 64, 64, 3))
        >>> model = zfnet(input_shape=(64, 64, 3), include_top=False)
        >>> kernel, bias = model.get_layer("conv2").get_weights()
        >>> model.get_layer("conv2").set_weights([np.abs(kernel), bias])  # so that it fires
        >>> [top] = top9(model, images, ["conv2"], k=3, units=[7])["conv2"]
        >>> len(top.projections), top.patches.shape
        (3, (3, 27, 27, 3))
    """
    graph = build_graph(model)
    if found is None:
        found = find_top_activations(
            graph, source, layers, k, image_size=image_size, batch_size=batch_size
        )
    return {
        layer: list(
            project_top(
                graph, source, found[layer], _units(found[layer], units), rule=rule,
                image_size=image_size, batch_size=batch_size,
            )
        )
        for layer in layers
    }  # fmt: skip


def project_top(
    model: keras.Model | Graph,
    source: Dataset | Split | np.ndarray,
    found: TopActivations,
    units: Sequence[int] | None = None,
    *,
    rule: str = "deconvnet",
    image_size: int | None = None,
    batch_size: int = 16,
) -> Iterator[UnitExamples]:
    """Projects what was found of one layer, unit by unit: `top9` for more than memory holds.

    Args:
        model: As there.
        source: As there.
        found: What `strongest` returned for the layer.
        units: Feature maps; None is all of them.
        rule: As there.
        image_size: As there.
        batch_size: As there.

    Raises:
        UsageError: As there.
        DataError: As there.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import find_top_activations, project_top
        >>> images = np.random.default_rng(0).uniform(0, 255, (6, 64, 64, 3))
        >>> model = zfnet(input_shape=(64, 64, 3), include_top=False)
        >>> found = find_top_activations(model, images, ["conv1"], k=2)["conv1"]
        >>> next(project_top(model, images, found)).unit
        0
    """
    graph = build_graph(model)
    size = image_size or graph.image_shape[0]
    for unit in _units(found, units):
        yield _top(graph, source, found, unit, rule, batch_size, size)


def sample_units(count: int, wanted: int, seed: int) -> list[int]:
    """Returns `wanted` of `count` units, or all, drawn by `seed` and in their order."""
    every = np.random.default_rng(seed).permutation(count)
    return sorted(every[:wanted].tolist())


def _units(found: TopActivations, units) -> Sequence[int]:
    count = len(found.values)
    if isinstance(units, Mapping):
        units = units.get(found.layer)
    for unit in units or ():
        if not 0 <= unit < count:
            raise UsageError(
                f"Layer {found.layer!r} has no unit {unit}",
                expected=f"0 to {count - 1}",
                received=unit,
            )
    return range(count) if units is None else units


def _top(
    graph: Graph, source, found: TopActivations, unit: int, rule: str, batch_size: int, size
) -> UnitExamples:
    ranks = np.flatnonzero(found.values[unit] > 0)
    index = found.images[unit, ranks]
    if not len(index):
        return UnitExamples(found.layer, unit, (), np.zeros((0, 0, 0, 3), np.float32))
    images = _read(source, index, size)
    places = [(i, *found.position(unit, rank), unit) for i, rank in enumerate(ranks)]
    results = project(graph, images, found.layer, places, rule=rule, batch_size=batch_size)
    for result, value in zip(results, found.values[unit, ranks], strict=True):
        if abs(result.activation - value) > TOLERANCE * abs(value):
            raise DataError(
                f"Unit {unit} of {found.layer} answers image {index[result.image]} otherwise"
                " than when the strongest were looked for",
                expected=f"{value:.6g}",
                received=f"{result.activation:.6g}",
                hint="The dataset, the weights or the preprocessing have changed",
            )
    patches = [_patch(images[result.image], result.unclipped) for result in results]
    named = [replace(result, image=int(index[result.image])) for result in results]
    return UnitExamples(found.layer, unit, tuple(named), np.stack(patches))


def _read(source, index: np.ndarray, size: int | None) -> np.ndarray:
    if isinstance(source, Dataset):
        source = source.splits["test"]
    if isinstance(source, Split):
        augmentation = Augmentation(size)
        [batch] = batches(source, augmentation=augmentation, batch_size=len(index), order=index)
        return batch["images"].numpy()
    return np.asarray(source[index], np.float32)


def _patch(image: np.ndarray, box: Box) -> np.ndarray:
    """Returns what a unit sees of an image, gray where there is none."""
    patch = np.full((box.bottom - box.top, box.right - box.left, 3), GRAY, np.float32)
    rows, columns = (
        np.clip(np.arange(first, end), 0, side - 1)
        for first, end, side in (
            (box.top, box.bottom, image.shape[0]),
            (box.left, box.right, image.shape[1]),
        )
    )
    inside = np.ix_(
        rows == np.arange(box.top, box.bottom), columns == np.arange(box.left, box.right)
    )
    patch[inside] = image[np.ix_(rows, columns)][inside]
    return patch

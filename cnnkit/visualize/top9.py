"""The strongest activations of units, projected to the pixels (Zeiler & Fergus 2013, Fig. 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from cnnkit._network_names import check_unit
from cnnkit.data import Dataset, Split, batches
from cnnkit.data.crops import fit_images
from cnnkit.errors import DataError
from cnnkit.models.graph import Graph, build_graph
from cnnkit.models.receptive_field import Box
from cnnkit.visualize.deconvnet.project import Projection, check_projection, project
from cnnkit.visualize.top_activations import (
    TopActivations,
    find_top_activations,
    resize_augmentation,
)

# Largest relative difference between an activation and the one that the search found.
TOLERANCE = 1e-3
GRAY = 128


@dataclass(frozen=True)
class UnitExamples:
    """The images with the strongest activations of one unit, and the projections.

    Attributes:
        layer: Name of the layer.
        unit: Index of the unit.
        projections: One for each image, strongest first; their `image` is an index into the
            dataset. Empty for a unit that never fires.
        patches: (n, h, w, 3) float32, the unit's receptive field in those images, gray beyond the
            border.
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
    """Finds the images with the strongest activations of units, and projects the activations.

    The dataset is read once, and the images that were found once more.

    Args:
        model: A functional or sequential model, as `cnnkit.visualize.deconvnet` takes it.
        source: A split, a dataset (its `test` split), or images (n, h, w, 3) as the model takes
            them.
        layers: Names of layers.
        k: Images for each unit.
        units: Units of every layer, or by layer; None takes all of them.
        rule: The backward rule: `"deconvnet"`, `"guided"` or `"gradient"`.
        image_size: Side of a dataset's images, for a model that takes images of any size.
        batch_size: Images, and projections, at a time.
        found: Result of `find_top_activations` for this source, to skip the search.

    Returns:
        By layer, one `UnitExamples` for every unit.

    Raises:
        UsageError: If a layer or a unit does not exist, or the images do not fit.
        DataError: If an activation differs from the one that the search found.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import top9
        >>> images = np.random.default_rng(0).uniform(0, 255, (6, 64, 64, 3))
        >>> model = zfnet(input_shape=(64, 64, 3), include_top=False)
        >>> kernel, bias = model.get_layer("conv2").get_weights()
        >>> model.get_layer("conv2").set_weights([np.abs(kernel), bias])  # so that it fires
        >>> [examples] = top9(model, images, ["conv2"], k=3, units=[7])["conv2"]
        >>> len(examples.projections), examples.patches.shape
        (3, (3, 27, 27, 3))
    """
    graph = build_graph(model)
    check_projection(graph, layers, rule)
    if found is None:
        found = find_top_activations(
            graph, source, layers, k, image_size=image_size, batch_size=batch_size
        )
    return {
        layer: list(
            project_top(
                graph, source, found[layer], _checked_units(found[layer], units), rule=rule,
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
    """Projects the strongest activations of one layer, unit by unit.

    Unlike `top9`, it holds one unit's projections in memory at a time.

    Args:
        model: A functional or sequential model, as `cnnkit.visualize.deconvnet` takes it.
        source: The source that was searched.
        found: Result of `find_top_activations` for the layer.
        units: Units of the layer; None takes all of them.
        rule: The backward rule: `"deconvnet"`, `"guided"` or `"gradient"`.
        image_size: Side of a dataset's images, for a model that takes images of any size.
        batch_size: Images, and projections, at a time.

    Yields:
        One `UnitExamples` for every unit.

    Raises:
        UsageError: If a unit does not exist, or the images do not fit.
        DataError: If an activation differs from the one that the search found.

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
    for unit in _checked_units(found, units):
        yield _project_unit(graph, source, found, unit, rule, batch_size, image_size)


def sample_units(count: int, size: int, seed: int) -> list[int]:
    """Returns a random sample of `size` of `count` units, or all of them, in ascending order."""
    order = np.random.default_rng(seed).permutation(count)
    return sorted(order[:size].tolist())


def _checked_units(
    found: TopActivations, units: Sequence[int] | Mapping[str, Sequence[int]] | None
) -> Sequence[int]:
    count = len(found.values)
    if isinstance(units, Mapping):
        units = units.get(found.layer)
    for unit in units or ():
        check_unit(found.layer, unit, count)
    return range(count) if units is None else units


def _project_unit(
    graph: Graph,
    source: Dataset | Split | np.ndarray,
    found: TopActivations,
    unit: int,
    rule: str,
    batch_size: int,
    image_size: int | None,
) -> UnitExamples:
    numbers = found.images[unit, found.values[unit] > 0]
    images = read_searched_images(graph, source, numbers, image_size)
    numbered = dict(zip(numbers.tolist(), images, strict=True))
    [examples] = project_images(graph, numbered, found, [unit], rule, batch_size)
    return examples


def project_images(
    graph: Graph,
    images: Mapping[int, np.ndarray],
    found: TopActivations,
    units: Sequence[int],
    rule: str = "deconvnet",
    batch_size: int = 16,
) -> list[UnitExamples]:
    """Projects the strongest activations of units in images that were read.

    Args:
        graph: The model.
        images: The images that `found` names for the units, (h, w, 3) float32, by their indices.
        found: Result of `find_top_activations` for the layer.
        units: Units of the layer.
        rule: The backward rule: `"deconvnet"`, `"guided"` or `"gradient"`.
        batch_size: Projections at a time.

    Returns:
        One `UnitExamples` for every unit.

    Raises:
        DataError: If an activation differs from the one that the search found.
    """
    none = np.zeros((0, 0, 0, graph.image_shape[2]), np.float32)
    ranks = [
        (unit, rank) for unit in units for rank in np.flatnonzero(found.values[unit] > 0).tolist()
    ]
    if not ranks:
        return [UnitExamples(found.layer, unit, (), none) for unit in units]
    rows = {number: row for row, number in enumerate(images)}
    numbers = [int(found.images[one]) for one in ranks]
    indices = [
        (rows[number], *found.position(unit, rank), unit)
        for number, (unit, rank) in zip(numbers, ranks, strict=True)
    ]
    shown = np.stack(list(images.values()))
    results = project(graph, shown, found.layer, indices, rule=rule, batch_size=batch_size)
    projections: dict[int, list[Projection]] = {unit: [] for unit in units}
    for result, number, one in zip(results, numbers, ranks, strict=True):
        value = found.values[one]
        if abs(result.activation - value) > TOLERANCE * abs(value):
            raise DataError(
                f"Unit {result.unit} of {found.layer} has another activation for image"
                f" {number} than `found` says",
                expected=f"{value:.6g}",
                received=f"{result.activation:.6g}",
                hint="The dataset, the weights or the preprocessing have changed",
            )
        projections[result.unit].append(replace(result, image=number))
    return [
        UnitExamples(
            found.layer,
            unit,
            tuple(projections[unit]),
            np.stack([_receptive_patch(images[one.image], one.unclipped) for one in projected])
            if (projected := projections[unit])
            else none,
        )
        for unit in units
    ]


def read_searched_images(
    graph: Graph, source: Dataset | Split | np.ndarray, numbers: np.ndarray, image_size: int | None
) -> np.ndarray:
    """Returns images as the model takes them.

    Args:
        graph: The model.
        source: The source that was searched.
        numbers: Indices of the images, (n,) int.
        image_size: Side of a dataset's images, for a model that takes images of any size.

    Returns:
        (n, h, w, 3) float32.
    """
    if not len(numbers):
        return np.zeros((0, 0, 0, graph.image_shape[2]), np.float32)
    if isinstance(source, Dataset):
        source = source.splits["test"]
    if isinstance(source, Split):
        augmentation = resize_augmentation(graph, image_size)
        [batch] = batches(source, augmentation=augmentation, batch_size=len(numbers), order=numbers)
        return np.asarray(fit_images(batch["images"], graph.image_shape))
    return np.asarray(source[numbers], np.float32)


def _receptive_patch(image: np.ndarray, box: Box) -> np.ndarray:
    """Returns the pixels of an image in a box, gray beyond the image's border."""
    patch = np.full((box.bottom - box.top, box.right - box.left, image.shape[2]), GRAY, np.float32)
    top, left = max(box.top, 0), max(box.left, 0)
    inside = image[top : max(box.bottom, top), left : max(box.right, left)]
    height, width = inside.shape[:2]
    patch[top - box.top :, left - box.left :][:height, :width] = inside
    return patch

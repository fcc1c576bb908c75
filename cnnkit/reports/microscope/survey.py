"""What a site shows: one pass over a dataset finds the strongest images and the statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from cnnkit._network_names import check_unit
from cnnkit.data import Split
from cnnkit.errors import CnnkitError, UsageError
from cnnkit.models.graph import Graph
from cnnkit.models.receptive_field import ReceptiveField, receptive_field
from cnnkit.visualize import TopActivations, find_top_activations
from cnnkit.visualize.deconvnet.project import check_projection
from cnnkit.visualize.unit_statistics import SAMPLED, UnitStatistics

RULE = "deconvnet"
# Images of a unit.
TOP = 9


@dataclass(frozen=True)
class LayerSurvey:
    """What was found for the units of one layer.

    Attributes:
        found: The strongest activations.
        statistics: Statistics over all images.
        twins: (units,) int64, `UnitStatistics.near_duplicates`.
        field: Receptive fields of the units; None if they are not known.
        units: Units that are shown.
    """

    found: TopActivations
    statistics: UnitStatistics
    twins: np.ndarray
    field: ReceptiveField | None
    units: Sequence[int]

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.found.layer

    def top_classes(self, unit: int, count: int) -> list[int]:
        """Return the classes with the largest mean activations of a unit, at most `count`."""
        means = self.statistics.class_means[:, unit]
        return [int(one) for one in np.argsort(-means, kind="stable")[:count] if means[one] > 0]


@dataclass(frozen=True)
class Survey:
    """What was found in one pass over the images.

    Attributes:
        layers: What was found for each layer.
        predicted: (n,) int64, the class that the network takes each image for; None where its
            classes are not those of the images.
        sampled: (m,) int64, the images whose activations are kept in the statistics.
        largest: By image and layer, the largest activation of each unit, (units,) float32.
    """

    layers: list[LayerSurvey]
    predicted: np.ndarray | None
    sampled: np.ndarray
    largest: Mapping[int, Mapping[str, np.ndarray]]


def choose_layers(graph: Graph, layers: Sequence[str] | None) -> list[str]:
    """Return the layers of a site: those given, or all convolutions.

    Raises:
        UsageError: If a layer does not exist or cannot be projected, or there is no convolution.
    """
    if layers is None:
        nodes = [one for one in graph.nodes if isinstance(one.layer, keras.layers.Conv2D)]
        layers = [one.layer.name for one in nodes]
        if not layers:
            raise UsageError(
                f"`layers` must be given: model {graph.name!r} has no convolution",
                expected="names of dense or other layers",
            )
    layers = list(dict.fromkeys(layers))
    if not layers:
        raise UsageError("`layers` must name at least one layer")
    check_projection(graph, layers, RULE)
    return layers


def survey(
    graph: Graph,
    images: Split,
    classes: int,
    layers: Sequence[str],
    units: Sequence[int] | None,
    *,
    classifier: str | None = None,
    kept: Sequence[int] = (),
    image_size: int | None = None,
    batch_size: int = 16,
    progress: Callable[[int], object] | None = None,
) -> Survey:
    """Search a split once for all units of all layers.

    Args:
        graph: The network.
        images: The images.
        classes: Number of classes of the images.
        layers: Names of the layers.
        units: Units that are shown of every layer; None shows all.
        classifier: The layer whose units are the classes of the images, if there is one.
        kept: Images whose activations are returned.
        image_size: Side of the images, for a network that takes images of any size.
        batch_size: Images at a time.
        progress: Called after every batch with its number of images.

    Raises:
        UsageError: If a layer has no such unit.
    """
    statistics = {layer: UnitStatistics(classes) for layer in layers}
    sampled = np.zeros(len(images), bool)
    sampled[np.linspace(0, len(images) - 1, min(SAMPLED, len(images))).round().astype(int)] = True

    predicted: list[np.ndarray] = []
    kept_values: dict[int, dict[str, np.ndarray]] = {}

    def observe(index: np.ndarray, largest: Mapping[str, np.ndarray]) -> None:
        if classifier is not None:
            predicted.append(largest[classifier].argmax(axis=1))
        for row in np.flatnonzero(np.isin(index, kept)):
            kept_values[int(index[row])] = {
                layer: np.array(largest[layer][row]) for layer in layers
            }
        for layer, values in largest.items():
            if layer not in statistics:
                continue
            check_units(layer, units, values.shape[1])
            statistics[layer].collect(values, images.labels[index], sampled=sampled[index])

    more = [classifier] if classifier is not None and classifier not in layers else []
    found = find_top_activations(
        graph, images, [*layers, *more], TOP, image_size=image_size, batch_size=batch_size,
        progress=progress, observe=observe,
    )  # fmt: skip
    sides = (image_size, image_size) if image_size is not None else None
    surveys = [
        LayerSurvey(
            found[layer],
            statistics[layer],
            statistics[layer].near_duplicates(),
            _field(graph, layer, sides),
            range(len(found[layer].values)) if units is None else units,
        )
        for layer in layers
    ]
    taken_for = np.concatenate(predicted) if predicted else None
    return Survey(surveys, taken_for, np.flatnonzero(sampled), kept_values)


def find_classifier(graph: Graph, names: Sequence[str], known: Sequence[str] | None) -> str | None:
    """Return the layer whose units are the classes of the images, or None.

    Args:
        graph: The network.
        names: Names of the classes of the images.
        known: Names of the classes of the network; None where it has numbers only, and then as many
            classes are the same ones, in order.
    """
    if known is not None and tuple(known) != tuple(names):
        return None
    try:
        output = graph.output
        node = graph.node(output.layer.name)
    except CnnkitError:
        return None
    shape = node.tensors[0].shape
    is_classifier = node is output and len(shape) == 2 and shape[1] == len(names) > 1
    return node.layer.name if is_classifier else None


def check_units(layer: str, units: Sequence[int] | None, count: int) -> None:
    """Check that a layer has the units.

    Raises:
        UsageError: If it has not.
    """
    for unit in units or ():
        check_unit(layer, unit, count)


def _field(graph: Graph, layer: str, sides: tuple[int, int] | None) -> ReceptiveField | None:
    if graph.image_shape[0] is not None:
        sides = None
    try:
        return receptive_field(graph, layer, sides)
    except CnnkitError:
        return None

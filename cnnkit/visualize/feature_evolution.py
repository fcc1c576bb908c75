"""Projections of a unit's strongest activation over the epochs of a training run.

Zeiler & Fergus 2013, Fig. 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnkit.data import Dataset, Split
from cnnkit.errors import UsageError
from cnnkit.models import load_model
from cnnkit.models.graph import build_graph
from cnnkit.run_folder import RunFolder
from cnnkit.visualize.top9 import UnitExamples, sample_units, top9
from cnnkit.visualize.top_activations import find_top_activations


@dataclass(frozen=True)
class FeatureEvolution:
    """The strongest activation of one unit after several epochs.

    Attributes:
        layer: Name of the layer.
        unit: Index of the unit.
        epochs: The epochs, in ascending order.
        examples: The strongest activation over the dataset after every epoch; it has no projection
            if the unit never fired.
    """

    layer: str
    unit: int
    epochs: tuple[int, ...]
    examples: tuple[UnitExamples, ...]


def feature_evolution(
    run: RunFolder,
    source: Dataset | Split | np.ndarray,
    layers: Sequence[str],
    *,
    units: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    count: int = 6,
    seed: int = 0,
    epochs: Sequence[int] | None = None,
    rule: str = "deconvnet",
    batch_size: int = 16,
) -> dict[str, list[FeatureEvolution]]:
    """Finds and projects each unit's strongest activation with the models of several epochs.

    A projection changes suddenly when another image becomes the strongest one.

    Args:
        run: A run folder with models of single epochs: see `TrainingConfig.keep_epochs`.
        source: The training data: a split, a dataset (its `train` split, as in the paper), or
            images (n, h, w, 3) as the model takes them. It is read once for every epoch.
        layers: Names of layers.
        units: Units of every layer, or by layer; None samples `count` units of each.
        count: Number of units to sample.
        seed: Seed of the sample.
        epochs: Epochs, of which those that the run kept are used; None takes all kept epochs. The
            paper's epochs are those of the recipe `zfnet-paper`.
        rule: The backward rule: `"deconvnet"`, `"guided"` or `"gradient"`.
        batch_size: Images, and projections, at a time.

    Returns:
        By layer, one `FeatureEvolution` for every unit.

    Raises:
        RunError: If the run kept none of these epochs.
        UsageError: If a layer or a unit does not exist.

    Example:
        >>> from cnnkit.data import load_dataset
        >>> from cnnkit.run_folder import RunFolder
        >>> from cnnkit.visualize import feature_evolution
        >>> run = RunFolder.open("runs/photos")  # doctest: +SKIP
        >>> photos = load_dataset("folder:photos")  # doctest: +SKIP
        >>> feature_evolution(run, photos, ["conv1", "conv5"])["conv5"][0].epochs  # doctest: +SKIP
        (1, 2, 5, 10, 20)
    """
    kept = run.kept_epochs
    used = run.choose_epochs(epochs)
    if isinstance(source, Dataset):
        source = source.splits["train"]
    chosen: Mapping[str, Sequence[int]] = {}
    by_epoch = []
    for epoch in used:
        graph = build_graph(load_model(kept[epoch], preprocessing="raw"))
        found = find_top_activations(graph, source, layers, 1, batch_size=batch_size)
        chosen = chosen or {
            layer: _layer_units(units, layer, len(found[layer].values), count, seed)
            for layer in layers
        }
        by_epoch.append(
            top9(graph, source, layers, 1, units=chosen, rule=rule, batch_size=batch_size,
                 found=found)
        )  # fmt: skip
    return {
        layer: [
            FeatureEvolution(layer, unit, used, tuple(examples[layer][i] for examples in by_epoch))
            for i, unit in enumerate(chosen[layer])
        ]
        for layer in layers
    }


def _layer_units(
    units: Sequence[int] | Mapping[str, Sequence[int]] | None,
    layer: str,
    total: int,
    count: int,
    seed: int,
) -> Sequence[int]:
    if units is None:
        return sample_units(total, count, seed)
    if not isinstance(units, Mapping):
        return units
    if layer not in units:
        raise UsageError(f"`units` must name units of layer {layer!r}", received=", ".join(units))
    return units[layer]

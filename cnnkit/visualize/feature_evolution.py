"""How what excites a unit changed in training (Zeiler & Fergus 2013, Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnkit.data import Dataset, Split
from cnnkit.errors import RunError, UsageError
from cnnkit.models import load_model
from cnnkit.run_folder import RunFolder
from cnnkit.visualize.top9 import UnitExamples, sample_units, top9
from cnnkit.visualize.top_activations import find_top_activations


@dataclass(frozen=True)
class FeatureEvolution:
    """What excited one unit most, after several epochs.

    Attributes:
        layer: Name of the layer.
        unit: The feature map.
        epochs: The epochs, in their order.
        examples: For every epoch the strongest activation over the dataset; empty where there was none.
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
    """Finds and projects each unit's strongest activation with the networks of several epochs.

    Where a projection suddenly changes, another image has become the strongest one.

    Args:
        run: A run that kept networks: see `TrainingConfig.keep_epochs`.
        source: What it was trained on (of a dataset the `train` split, as in the paper), a split,
            or images (n, h, w, 3) as the model takes them. It is read once for every epoch.
        layers: Names of layers.
        units: Feature maps of every layer, or by layer; None draws `count` of each by `seed`.
        count: Units to draw.
        seed: Of the draw.
        epochs: Those that are looked at, as far as the run has kept them; None is all of them. The
            paper's are those of the recipe `zfnet-paper`.
        rule: The backward rule.
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
    wanted = sorted(set(kept if epochs is None else epochs))
    looked_at = tuple(epoch for epoch in wanted if epoch in kept)
    if not looked_at:
        raise RunError(
            f"The run {run.path} kept no network of {'its' if epochs is None else 'these'} epochs",
            expected=f"some of {', '.join(map(str, wanted))}" if wanted else None,
            received=", ".join(map(str, kept)) or "none at all",
            hint="Train with --keep-epochs EPOCH ..., or ask for those that were kept",
        )
    if isinstance(source, Dataset):
        source = source.splits["train"]
    chosen: Mapping[str, Sequence[int]] = {}
    by_epoch = []
    for epoch in looked_at:
        model = load_model(kept[epoch])
        found = find_top_activations(model, source, layers, 1, batch_size=batch_size)
        chosen = chosen or {
            layer: _units(units, layer, len(found[layer].values), count, seed) for layer in layers
        }
        by_epoch.append(
            top9(model, source, layers, 1, units=chosen, rule=rule, batch_size=batch_size,
                 found=found)
        )  # fmt: skip
    return {
        layer: [
            FeatureEvolution(layer, unit, looked_at, tuple(tops[layer][i] for tops in by_epoch))
            for i, unit in enumerate(chosen[layer])
        ]
        for layer in layers
    }


def _units(units, layer: str, of: int, count: int, seed: int) -> Sequence[int]:
    if units is None:
        return sample_units(of, count, seed)
    if not isinstance(units, Mapping):
        return units
    if layer not in units:
        raise UsageError(f"No units are given for layer {layer!r}", received=", ".join(units))
    return units[layer]

"""What the papers measured on ImageNet 2012's validation images, by network and protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnkit.config import TrainingConfig
from cnnkit.recipes.vgg import COLUMNS, ERRORS, SCALES

VGG = "Simonyan & Zisserman 2014"
# Single-scale testing of a network that was trained on jittered scales: the middle of them.
SIDES = {"256": 256, "384": 384, "jitter": 384}
# Table 4: several scales, dense.
SEVERAL = {
    ("b", "256"): (28.2, 9.6),
    ("c", "256"): (27.7, 9.2),
    ("c", "384"): (27.8, 9.2),
    ("c", "jitter"): (26.3, 8.2),
    ("d", "256"): (26.6, 8.6),
    ("d", "384"): (26.5, 8.6),
    ("d", "jitter"): (24.8, 7.5),
    ("e", "256"): (26.9, 8.7),
    ("e", "384"): (26.7, 8.6),
    ("e", "jitter"): (24.8, 7.5),
}
SEVERAL_SIDES = {"256": (224, 256, 288), "384": (352, 384, 416), "jitter": (256, 384, 512)}
# Table 5: crops, and both, of networks trained on jittered scales, tested at three.
CROPS = {
    ("d", "multi-crop"): (24.6, 7.5),
    ("d", "dense+multi-crop"): (24.4, 7.2),
    ("e", "multi-crop"): (24.6, 7.4),
    ("e", "dense+multi-crop"): (24.4, 7.1),
}


@dataclass(frozen=True)
class Published:
    """The figures of a paper.

    Attributes:
        source: The paper and the table.
        top1_error: As a fraction, 0..1.
        top5_error: The same.
    """

    source: str
    top1_error: float
    top5_error: float


def published(
    config: TrainingConfig, protocol: str, scales: Sequence[int], classes: int
) -> Published | None:
    """Returns what the paper found with this network, trained and tested in this way.

    Args:
        config: How the network was trained.
        protocol: As `cnnkit.evaluate` takes it.
        scales: Shorter sides at which it is tested.
        classes: Number of classes; the figures are for ImageNet's 1,000, at 224 pixels.

    Returns:
        The figures; None where the paper has none for just this.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> published(find_recipe("vgg-d-256").config, "dense", (256,), 1000)
        Published(source='Simonyan & Zisserman 2014, Table 3', top1_error=0.27, top5_error=0.088)
    """
    if classes != 1000 or config.image_size != 224:
        return None
    if config.model == "alexnet":
        options = {"groups": 2, "preset": "paper", "sixth_conv": None, **config.model_options}
        its_own = (options["groups"], options["preset"], options["sixth_conv"])
        if its_own == (2, "paper", None) and protocol == "ten-crop" and tuple(scales) == (256,):
            return _percent("Krizhevsky et al. 2012, Table 2: 1 CNN", (40.7, 18.2))
        return None
    column = next((name for name, model in COLUMNS.items() if model == config.model), None)
    trained = next((name for name, sides in SCALES.items() if sides == config.scale), None)
    if column is None or trained is None:
        return None
    sides, table, found = tuple(sorted(scales)), "", None
    if protocol == "dense" and sides == (SIDES[trained],):
        table, found = "3", ERRORS.get((column, trained))
    elif protocol == "dense" and sides == SEVERAL_SIDES[trained]:
        table, found = "4", SEVERAL.get((column, trained))
    elif trained == "jitter" and sides == SEVERAL_SIDES[trained]:
        table, found = "5", CROPS.get((column, protocol))
    return _percent(f"{VGG}, Table {table}", found) if found else None


def _percent(source: str, errors: tuple[float, float]) -> Published:
    return Published(source, *(round(error / 100, 4) for error in errors))

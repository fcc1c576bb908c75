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
# Table 6: averaged softmax of several networks, each at its own three scales of Table 4.
TWO = (("d", "jitter"), ("e", "jitter"))
SEVEN = (
    ("c", "256"),
    ("c", "384"),
    ("d", "256"),
    ("d", "384"),
    ("d", "jitter"),
    ("e", "256"),
    ("e", "384"),
)
TOGETHER = {
    (SEVEN, "dense"): (24.7, 7.5),
    (TWO, "dense"): (24.0, 7.1),
    (TWO, "multi-crop"): (23.9, 7.2),
    (TWO, "dense+multi-crop"): (23.7, 6.8),
}


@dataclass(frozen=True)
class PublishedError:
    """The figures of a paper.

    Attributes:
        source: The paper and the table.
        top1_error: As a fraction, 0..1.
        top5_error: The same.
    """

    source: str
    top1_error: float
    top5_error: float


def published_errors(
    networks: Sequence[tuple[TrainingConfig, Sequence[int]]], protocol: str, classes: int
) -> PublishedError | None:
    """Returns what the paper found with this network or ensemble, trained and tested in this way.

    Args:
        networks: How each was trained, and the shorter sides at which it is tested.
        protocol: As `cnnkit.evaluate` takes it.
        classes: Number of classes; the figures are for ImageNet's 1,000, at 224 pixels.

    Returns:
        The figures; None where the paper has none for just this.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> published_errors([(find_recipe("vgg-d-256").config, (256,))], "dense", 1000)
        Published(source='Simonyan & Zisserman 2014, Table 3', top1_error=0.27, top5_error=0.088)
    """
    if classes != 1000 or any(config.image_size != 224 for config, _ in networks):
        return None
    if all(map(_is_krizhevskys, *zip(*networks, strict=True))) and protocol == "ten-crop":
        source = "Krizhevsky et al. 2012, Table 2: "
        if len(networks) == 1:
            return _percent(source + "1 CNN", (40.7, 18.2))
        return _percent(source + "5 CNNs", (38.1, 16.4)) if len(networks) == 5 else None
    tests = [test for config, scales in networks if (test := _test_of(config, scales))]
    if len(tests) < len(networks):
        return None
    if len(tests) == 1:
        return _alone(*tests[0], protocol)
    several = all(sides == SEVERAL_SIDES[trained] for _, trained, sides in tests)
    nets = tuple(sorted((column, trained) for column, trained, _ in tests))
    found = TOGETHER.get((nets, protocol)) if several else None
    return _percent(f"{VGG}, Table 6", found) if found else None


def _is_krizhevskys(config: TrainingConfig, scales: Sequence[int]) -> bool:
    options = {"groups": 2, "preset": "paper", "sixth_conv": None, **config.model_options}
    its_own = (options["groups"], options["preset"], options["sixth_conv"])
    return config.model == "alexnet" and its_own == (2, "paper", None) and tuple(scales) == (256,)


def _test_of(
    config: TrainingConfig, scales: Sequence[int]
) -> tuple[str, str, tuple[int, ...]] | None:
    """Returns VGG's column, scales of training and sides of the test; None for another network."""
    column = next((name for name, model in COLUMNS.items() if model == config.model), None)
    trained = next((name for name, sides in SCALES.items() if sides == config.scale), None)
    return (column, trained, tuple(sorted(scales))) if column and trained else None


def _alone(
    column: str, trained: str, sides: tuple[int, ...], protocol: str
) -> PublishedError | None:
    table, found = "", None
    if protocol == "dense" and sides == (SIDES[trained],):
        table, found = "3", ERRORS.get((column, trained))
    elif protocol == "dense" and sides == SEVERAL_SIDES[trained]:
        table, found = "4", SEVERAL.get((column, trained))
    elif trained == "jitter" and sides == SEVERAL_SIDES[trained]:
        table, found = "5", CROPS.get((column, protocol))
    return _percent(f"{VGG}, Table {table}", found) if found else None


def _percent(source: str, errors: tuple[float, float]) -> PublishedError:
    return PublishedError(source, *(round(error / 100, 4) for error in errors))

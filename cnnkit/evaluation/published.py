"""Errors that the papers report on the ImageNet 2012 validation images, by network and protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnkit.config import TrainingConfig
from cnnkit.recipes.vgg import COLUMNS, SCALES, SINGLE_SCALE_ERRORS

VGG = "Simonyan & Zisserman 2014"
# Table 3: one scale, dense; the middle of the scales for a network that was trained on several.
SINGLE_SCALE_SIDES = {"256": 256, "384": 384, "jitter": 384}
# Table 4: several scales, dense.
MULTI_SCALE_ERRORS = {
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
MULTI_SCALE_SIDES = {"256": (224, 256, 288), "384": (352, 384, 416), "jitter": (256, 384, 512)}
# Table 5: crops, and crops with dense, at three scales; the networks were trained on all scales.
MULTI_CROP_ERRORS = {
    ("d", "multi-crop"): (24.6, 7.5),
    ("d", "dense+multi-crop"): (24.4, 7.2),
    ("e", "multi-crop"): (24.6, 7.4),
    ("e", "dense+multi-crop"): (24.4, 7.1),
}
# Table 6: averaged softmax of several networks, each at its own three scales of Table 4.
TWO_NETWORKS = (("d", "jitter"), ("e", "jitter"))
SEVEN_NETWORKS = (
    ("c", "256"),
    ("c", "384"),
    ("d", "256"),
    ("d", "384"),
    ("d", "jitter"),
    ("e", "256"),
    ("e", "384"),
)
ENSEMBLE_ERRORS = {
    (SEVEN_NETWORKS, "dense"): (24.7, 7.5),
    (TWO_NETWORKS, "dense"): (24.0, 7.1),
    (TWO_NETWORKS, "multi-crop"): (23.9, 7.2),
    (TWO_NETWORKS, "dense+multi-crop"): (23.7, 6.8),
}


@dataclass(frozen=True)
class PublishedError:
    """Errors that a paper reports.

    Attributes:
        source: Paper and table.
        top1_error: Top-1 error, 0..1.
        top5_error: Top-5 error, 0..1.
    """

    source: str
    top1_error: float
    top5_error: float


def published_errors(
    networks: Sequence[tuple[TrainingConfig, Sequence[int]]], protocol: str, classes: int
) -> PublishedError | None:
    """Return the errors that a paper reports for the same network or ensemble and the same test.

    Args:
        networks: Configuration of each network, and the shorter sides at which it is tested.
        protocol: As `cnnkit.evaluate` takes it.
        classes: Number of classes; the papers report errors for 1,000, at 224 pixels.

    Returns:
        The errors; None if the papers report none for exactly this test.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> error = published_errors([(find_recipe("vgg-d-256").config, (256,))], "dense", 1000)
        >>> error.source, error.top1_error, error.top5_error
        ('Simonyan & Zisserman 2014, Table 3', 0.27, 0.088)
    """
    if classes != 1000 or any(config.image_size != 224 for config, _ in networks):
        return None
    if (
        all(_is_krizhevsky_network(config, scales) for config, scales in networks)
        and protocol == "ten-crop"
    ):
        source = "Krizhevsky et al. 2012, Table 2: "
        if len(networks) == 1:
            return _from_percent(source + "1 CNN", (40.7, 18.2))
        return _from_percent(source + "5 CNNs", (38.1, 16.4)) if len(networks) == 5 else None
    tests = [test for config, scales in networks if (test := _vgg_test(config, scales))]
    if len(tests) < len(networks):
        return None
    if len(tests) == 1:
        return _single_network(*tests[0], protocol)
    several = all(sides == MULTI_SCALE_SIDES[trained] for _, trained, sides in tests)
    nets = tuple(sorted((column, trained) for column, trained, _ in tests))
    found = ENSEMBLE_ERRORS.get((nets, protocol)) if several else None
    return _from_percent(f"{VGG}, Table 6", found) if found else None


def _is_krizhevsky_network(config: TrainingConfig, scales: Sequence[int]) -> bool:
    options = {"groups": 2, "preset": "paper", "sixth_conv": None, **config.model_options}
    chosen = (options["groups"], options["preset"], options["sixth_conv"])
    return config.model == "alexnet" and chosen == (2, "paper", None) and tuple(scales) == (256,)


def _vgg_test(
    config: TrainingConfig, scales: Sequence[int]
) -> tuple[str, str, tuple[int, ...]] | None:
    """Return VGG's column, name of the training scales and sides of the test; None if not VGG."""
    column = next((name for name, model in COLUMNS.items() if model == config.model), None)
    trained = next((name for name, sides in SCALES.items() if sides == config.scale), None)
    return (column, trained, tuple(sorted(scales))) if column and trained else None


def _single_network(
    column: str, trained: str, sides: tuple[int, ...], protocol: str
) -> PublishedError | None:
    table, found = "", None
    if protocol == "dense" and sides == (SINGLE_SCALE_SIDES[trained],):
        table, found = "3", SINGLE_SCALE_ERRORS.get((column, trained))
    elif protocol == "dense" and sides == MULTI_SCALE_SIDES[trained]:
        table, found = "4", MULTI_SCALE_ERRORS.get((column, trained))
    elif trained == "jitter" and sides == MULTI_SCALE_SIDES[trained]:
        table, found = "5", MULTI_CROP_ERRORS.get((column, protocol))
    return _from_percent(f"{VGG}, Table {table}", found) if found else None


def _from_percent(source: str, errors: tuple[float, float]) -> PublishedError:
    return PublishedError(source, *(round(error / 100, 4) for error in errors))

"""Errors that the papers report for the same network and test, from the ledger of their results."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnkit._networks import RENAMED_OPTIONS
from cnnkit.config import TrainingConfig
from cnnkit.papers import paper_results
from cnnkit.papers.ledger import PaperResult
from cnnkit.recipes.vgg import COLUMNS, SCALES

# What the networks of the papers have, of the arguments of their builders that change the result.
_COMMON = {"activation": "relu", "omit_layers": (), "dropout": 0.5}
_STAGED = {**_COMMON, "lrn": True, "overlapping_pooling": True, "hidden_units": 4096}
_OPTIONS: dict[str, dict[str, Any]] = {
    "alexnet": {**_STAGED, "preset": "paper", "groups": 2, "filters": None, "sixth_conv": None},
    "zfnet": {**_STAGED, "filters": (384, 384, 256)},
    "vgg": _COMMON,
}
# Arguments that a trained network no longer shows.
_HARMLESS = frozenset({"bias_value", "initializer", "mean", "name", "weight_stddev"})
_SETS = {1000: "ilsvrc-2012", 10184: "imagenet-fall-2009"}


@dataclass(frozen=True)
class PublishedError:
    """Errors that a paper reports.

    Attributes:
        source: Paper and table.
        top1_error: Top-1 error, 0..1.
        top5_error: Top-5 error, 0..1.
        test_top5_error: Top-5 error on the competition's test images, whose labels are not public,
            0..1; None if the paper does not report it.
    """

    source: str
    top1_error: float
    top5_error: float
    test_top5_error: float | None = None


def published_errors(
    networks: Sequence[tuple[TrainingConfig, Sequence[int]]], protocol: str, classes: int
) -> PublishedError | None:
    """Return the errors that a paper reports for the same network or ensemble and the same test.

    The errors are those of ILSVRC-2012's validation images. A network with 1,000 classes counts as
    one of ILSVRC-2010 if the name of its dataset contains 2010, and one with 10,184 classes as one
    of ImageNet's release of fall 2009.

    Args:
        networks: Configuration of each network, and the shorter sides at which it is tested.
        protocol: As `cnnkit.evaluate` takes it.
        classes: Number of classes.

    Returns:
        The errors; None if the papers report none for exactly this test.

    Example:
        >>> from cnnkit.recipes import find_recipe
        >>> error = published_errors([(find_recipe("vgg-d-256").config, (256,))], "dense", 1000)
        >>> error.source, error.top1_error, error.top5_error
        ('Simonyan & Zisserman 2014, Table 3', 0.27, 0.088)
    """
    names = [_network_name(config, scales, classes) for config, scales in networks]
    sets = {_name_of_set(config, classes) for config, _ in networks}
    if None in names or None in sets or len(sets) != 1:
        return None
    known = [name for name in names if name is not None]
    columns = _results_by_test().get(f"{sets.pop()} {protocol} {' '.join(sorted(known))}")
    if columns is None:
        return None
    first = columns["top1_error"]
    # A column of VGG is named by its table alone.
    label = "" if first.paper == "vgg" else f": {first.network}"
    errors = {column: round(result.value / 100, 4) for column, result in columns.items()}
    return PublishedError(f"{first.source}{label}", **errors)


@functools.cache
def _results_by_test() -> Mapping[str, Mapping[str, PaperResult]]:
    """Return the results of each test by their columns."""
    tests: dict[str, dict[str, PaperResult]] = {}
    for result in paper_results():
        if result.test is not None:
            name, column = result.test
            tests.setdefault(name, {})[column] = result
    return tests


def _name_of_set(config: TrainingConfig, classes: int) -> str | None:
    """Return the name of the images in the ledger; None if they are none of the papers'."""
    if config.image_size != 224:
        return None
    if classes == 1000 and "2010" in config.dataset:
        return "ilsvrc-2010"
    return _SETS.get(classes)


def _network_name(config: TrainingConfig, scales: Sequence[int], classes: int) -> str | None:
    """Return the name of a network and its test scales in the ledger; None if it has none."""
    column = next((name for name, model in COLUMNS.items() if model == config.model), None)
    defaults = _OPTIONS.get("vgg" if column else config.model)
    if defaults is None:
        return None
    changed = {
        RENAMED_OPTIONS.get(name, name): _plain(value)
        for name, value in config.model_options.items()
        if name not in _HARMLESS
    }
    changed = {
        name: value
        for name, value in changed.items()
        if name not in defaults or value != defaults[name]
    }
    sides = ",".join(map(str, sorted(scales)))
    if column:
        trained = next((name for name, pair in SCALES.items() if pair == config.scale), None)
        return None if changed or trained is None else f"{column}-{trained}@{sides}"
    name = config.model
    if changed.pop("sixth_conv", None) is not None:
        # The paper tests such a network on 1,000 classes only after training it on more.
        if classes == 1000 and config.init_from is None:
            return None
        name += "-sixth"
    text = ";".join(f"{key}={_text(key, changed[key])}" for key in sorted(changed))
    return f"{name}({text})@{sides}" if text else f"{name}@{sides}"


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return ",".join(map(str, sorted(value) if name == "omit_layers" else value))

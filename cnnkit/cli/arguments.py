"""The fields of a training configuration as options of a command."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from cnnkit.config import CHOICES, TrainingConfig
from cnnkit.errors import UsageError

_UNSET = argparse.SUPPRESS


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares an option for every field; one that is not given is not in the namespace."""
    fields = parser.add_argument_group("fields of the recipe")

    def field(flag: str, **options: Any) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        if name in CHOICES:
            options["choices"] = CHOICES[name]
        fields.add_argument(flag, default=_UNSET, **options)

    def switch(flag: str, help: str) -> None:
        field(flag, action=argparse.BooleanOptionalAction, help=help)

    def pairs(flag: str, help: str) -> None:
        field(flag, action="append", metavar="NAME=VALUE", help=help)

    field("--model", help="a network that `cnnkit models` lists")
    pairs("--model-option", "an argument of the builder, for example dropout=0 (repeatable)")
    field("--dataset", help="digits, folder:PATH or tfds:NAME")
    field("--image-size", type=int, metavar="PIXELS", help="side of the images")
    field("--mean", help="what the model subtracts")
    field(
        "--scale",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="shorter side before the crop, or the smallest and the largest",
    )
    field("--crop", help="how training images are cut")
    switch("--flip", "whether every second training image is mirrored")
    switch("--square", "whether crops stay inside the central square")
    field("--colour-noise", help="noise along the principal components of the colors")
    switch("--fast-decode", "decode in a quicker way that changes the pixels a little")
    field("--epochs", type=int, help="times that every image is shown")
    field("--until-train-error", type=float, metavar="ERROR", help="ends training there, 0..1")
    field("--batch-size", type=int, metavar="IMAGES", help="images in a step, over all replicas")
    field("--accumulate", type=int, metavar="PARTS", help="parts that a batch is computed in")
    field("--learning-rate", type=float, metavar="RATE", help="at the beginning")
    field("--schedule", help="how the learning rate falls")
    field(
        "--drop-epochs",
        type=int,
        nargs="*",
        metavar="EPOCH",
        help="epochs before which the learning rate drops",
    )
    field("--drop-factor", type=float, metavar="FACTOR", help="what a drop multiplies it with")
    field("--patience", type=int, metavar="EPOCHS", help="epochs without improvement to a drop")
    field("--max-drops", type=int, metavar="DROPS", help="drops on a plateau at most")
    field("--warmup-epochs", type=float, metavar="EPOCHS", help="epochs of a rising learning rate")
    field("--momentum", type=float, help="part of the last step that is kept")
    field("--weight-decay", type=float, metavar="DECAY", help="factor of the weights")
    switch("--decay-biases", "whether biases decay too")
    pairs("--rate-multiplier", "factor of the learning rate by LAYER/VARIABLE: '*/bias=2'")
    pairs("--decay-multiplier", "factor of the weight decay, for example fc/kernel=250")
    field("--max-filter-rms", type=float, metavar="RMS", help="RMS that no filter may exceed")
    field("--precision", help="what the network computes in")
    switch("--jit-compile", "whether XLA compiles the network")
    field("--init-from", metavar="MODEL", help="run, .keras or weights file to begin from")
    field("--init-rule", help="which of its weights")
    field("--seed", type=int, help="decides everything random")
    switch("--deterministic", "whether a run gives the same bits each time")
    field("--strategy", help="one device, replicas that share every batch, or several processes")
    field("--replicas", type=int, help="replicas under --strategy mirrored")
    field("--checkpoint-every", metavar="EVERY", help="steps as in 500, or minutes as in 10m")
    field("--keep-checkpoints", type=int, metavar="COUNT", help="newest ones that are kept")
    switch("--keep-best", "whether to keep the most accurate network as best.keras")
    field(
        "--keep-epochs",
        type=int,
        nargs="*",
        metavar="EPOCH",
        help="epochs after which the network is kept, for `cnnkit visualize evolution`",
    )


def apply_overrides(base: TrainingConfig, args: argparse.Namespace) -> TrainingConfig:
    """Returns `base` with the fields that the command line names.

    Raises:
        UsageError: If a value is out of range.
    """
    given = vars(args)
    changes = {
        item.name: given[item.name]
        for item in dataclasses.fields(TrainingConfig)
        if item.name in given
    }
    for name in ("lr_milestones", "keep_epochs"):
        if name in changes:
            changes[name] = tuple(changes[name])
    if "scale" in changes:
        changes["scale"] = _scale(changes["scale"])
    # The options belong to the recipe's own network.
    same_network = changes.get("model", base.model) == base.model
    options = dict(base.model_options) if same_network else {}
    changes["model_options"] = {**options, **_pairs("model option", given.get("model_option", ()))}
    for name in ("rate_multiplier", "decay_multiplier"):
        if name in given:
            before = getattr(base, f"{name}s") if same_network else {}
            changes[f"{name}s"] = {**before, **_pairs(name.replace("_", " "), given[name])}
    return dataclasses.replace(base, **changes)


def _scale(sides: list[int]) -> tuple[int, int]:
    if len(sides) > 2:
        raise UsageError("A scale has one side or two", received=" ".join(map(str, sides)))
    return sides[0], sides[-1]


def _pairs(kind: str, texts: Iterable[str]) -> dict[str, Any]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                f"A {kind} has a value",
                expected=f"--{kind.replace(' ', '-')} NAME=VALUE",
                received=text,
            )
        pairs[name] = _value(value)
    return pairs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


HELP = "an argument of the builder, for example dropout=0 (repeatable)"


def parse_model_options(texts: Iterable[str]) -> dict[str, Any]:
    """Reads NAME=VALUE; a value is JSON, or else a word.

    Raises:
        UsageError: If there is no `=`.
    """
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                "A model option has a value", expected="--model-option NAME=VALUE", received=text
            )
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options

"""Options that several commands share: of training, of builders, and of feature specifications."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit._feature_options import MAX_SIDE, check_feature_options
from cnnkit._network_options import LIST_OPTIONS
from cnnkit.cli.deprecated import deprecated_option
from cnnkit.cli.option_names import field_flag
from cnnkit.cli.values import (
    DatasetSpec,
    Number,
    Whole,
    WholeNumbers,
    input_file,
    network_name,
    pretrained_network,
)
from cnnkit.config import TrainingConfig
from cnnkit.config_fields import option_of
from cnnkit.errors import UsageError

if TYPE_CHECKING:
    from cnnkit.features import FeatureSpec

MODEL_OPTION_HELP = "argument of the builder, for example dropout=0 (repeatable)"
PREPROCESSINGS = ("caffe", "torch", "tf", "unit", "raw")


def add_config_arguments(parser: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    """Adds an option for every field; an option that is not given is not in the namespace.

    Args:
        parser: The command's parser.
        without: Names of fields that the command sets itself.
    """
    group = parser.add_argument_group("fields of the recipe")
    hints = typing.get_type_hints(TrainingConfig)
    for item in dataclasses.fields(TrainingConfig):
        if item.name in without:
            continue
        option = option_of(item)
        flag = field_flag(item)
        former = option.former_flag or (
            option.former_name and f"--{option.former_name.replace('_', '-')}"
        )
        settings: dict[str, Any] = {"dest": item.name, **_settings(item, hints[item.name])}
        if option.choices:
            settings["choices"] = option.choices
        shown: dict[str, Any] = (
            {}
            if settings.get("action") is argparse.BooleanOptionalAction
            else {"metavar": settings.pop("metavar", None) or option.metavar}
        )
        group.add_argument(
            flag,
            default=argparse.SUPPRESS,
            help=option.help.removesuffix(".").replace("%", "%%"),
            **settings,
            **shown,
        )
        if former:
            deprecated_option(group, former, flag, **settings)


def given_fields(args: argparse.Namespace, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Returns the fields that the command line sets, by name.

    Args:
        args: The parsed arguments.
        without: As for `add_config_arguments`.

    Raises:
        UsageError: If the text of a mapping has no `=`, or `--scale` has too many numbers.
    """
    fields: dict[str, Any] = {}
    for item in dataclasses.fields(TrainingConfig):
        if hasattr(args, item.name) and item.name not in without:
            value = getattr(args, item.name)
            if option_of(item).flag is not None:
                value = parse_pairs(value, option_of(item).flag or "")
            fields[item.name] = tuple(value) if isinstance(value, list) else value
    if "scale" in fields:
        fields["scale"] = _scale(fields["scale"])
    return fields


def apply_overrides(base: TrainingConfig, args: argparse.Namespace) -> TrainingConfig:
    """Returns `base` with the fields that the command line sets.

    Options of the builder and multipliers by layer belong to the network of `base`: they are kept
    only if the network stays the same.

    Raises:
        UsageError: If a value is out of range.
    """
    changes = given_fields(args)
    same_network = changes.get("model", base.model) == base.model
    for item in dataclasses.fields(TrainingConfig):
        before = getattr(base, item.name)
        if isinstance(before, Mapping):
            given = changes.pop(item.name, {})
            if given or item.name == "model_options":
                changes[item.name] = {**(before if same_network else {}), **given}
    return dataclasses.replace(base, **changes)


def parse_model_options(texts: Iterable[str]) -> dict[str, Any]:
    """Parses the values of `--model-option NAME=VALUE`.

    Raises:
        UsageError: If a text has no `=`.
    """
    return parse_pairs(texts, "--model-option")


def add_preprocessing_arguments(parser: argparse._ActionsContainer, *, scale: bool = True) -> None:
    """Declare the options for what a file does not say about its preprocessing.

    Args:
        parser: A parser or an argument group.
        scale: Whether to declare `--scale`, which many commands have for the size of images; it is
            the inverse of `--std`.
    """
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSINGS,
        help="what the network expects of images where its file does not say it: caffe (BGR minus a"
        " mean), torch (torchvision's mean and deviation), tf (-1..1), unit (0..1) or raw (0..255)",
    )
    parser.add_argument(
        "--channels", choices=("RGB", "BGR"), help="color order of the first kernel"
    )
    parser.add_argument(
        "--mean",
        type=_mean_text,
        metavar="R,G,B|FILE",
        help="mean that is subtracted from 0..255, or a .binaryproto mean image",
    )
    parser.add_argument(
        "--std",
        type=_std_text,
        metavar="R,G,B",
        help="deviation to divide by, in 0..255; 1 for no division",
    )
    if scale:
        parser.add_argument(
            "--scale", type=Number(), help="factor after the mean, as in Caffe's transform_param"
        )


def preprocessing_arguments(args: argparse.Namespace, *, scale: bool = True) -> dict[str, Any]:
    """Return the options of `add_preprocessing_arguments` as arguments of `open_weights`.

    Args:
        args: The parsed arguments.
        scale: Whether they have the `--scale` of `add_preprocessing_arguments`.

    Raises:
        UsageError: If `--mean` or `--std` is neither numbers nor a file.
    """
    return {
        "preprocessing": args.preprocessing,
        "channels": args.channels,
        "mean": _mean(args.mean),
        "std": None if args.std is None else _numbers(args.std, "--std", (1, 3)),
        "scale": args.scale if scale else None,
    }


def _mean(text: str | None) -> Any:
    """Return a mean color, a mean image, or None."""
    if text is None:
        return None
    if Path(text).is_file():
        from cnnkit.models.weights.read_caffe import read_mean_image

        return read_mean_image(Path(text))
    return _numbers(text, "--mean", (3,), " or FILE")


def _numbers(text: str, option: str, counts: tuple[int, ...], other: str = "") -> list[float]:
    """Return numbers with commas between them; also those that `transfer predict` reads."""
    values = _parse_numbers(text)
    if len(values) not in counts:
        expected = " or ".join(f"{option} {','.join('RGB'[:count])}" for count in counts)
        raise UsageError(f"{option} must be numbers", expected=expected + other, received=text)
    return values * 3 if len(values) == 1 else values


def _parse_numbers(text: str) -> list[float]:
    """Return finite numbers with commas between them; none if one is something else."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []


def _mean_text(text: str) -> str:
    """Check a value of `--mean` while the command line is parsed."""
    if len(_parse_numbers(text)) != 3:
        if not Path(text).is_file():
            raise argparse.ArgumentTypeError(
                f"must be three numbers R,G,B or an existing file, received {text}"
            )
        input_file(text)
    return text


def _std_text(text: str) -> str:
    """Check a value of `--std` while the command line is parsed."""
    if len(_parse_numbers(text)) not in (1, 3):
        raise argparse.ArgumentTypeError(f"must be one number or three, R,G,B, received {text}")
    return text


def parse_pairs(texts: Iterable[str], flag: str) -> dict[str, Any]:
    """Parses NAME=VALUE; a value that is not JSON is a string, or a list where the name needs one.

    Args:
        texts: One text for each pair.
        flag: Option of the command line, for the error message.

    Raises:
        UsageError: If a text has no `=`.

    Example:
        >>> parse_pairs(["dropout=0", "activation=tanh"], "--model-option")
        {'dropout': 0, 'activation': 'tanh'}
        >>> parse_pairs(["omit_layers=fc6,fc7", "filters=4,4,4"], "--model-option")
        {'omit_layers': ['fc6', 'fc7'], 'filters': [4, 4, 4]}
    """
    pairs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{flag} must be NAME=VALUE", received=text)
        pairs[name] = _parse_json(value)
        if name in LIST_OPTIONS and isinstance(pairs[name], str):
            pairs[name] = [_parse_json(one) for one in value.split(",")]
    return pairs


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# Fields whose values are checked by more than their type.
_TYPES = {"model": network_name, "dataset": DatasetSpec(), "init_from": pretrained_network}


def _settings(item: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    """Returns the arguments of `add_argument` that follow from the type and range of a field."""
    option = option_of(item)
    bounds = {name: getattr(option, name) for name in ("minimum", "maximum", "above", "below")}
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    kind = kinds[0] if type(None) in typing.get_args(hint) else hint
    origin = typing.get_origin(kind) or kind
    if origin is bool:
        return {"action": argparse.BooleanOptionalAction}
    if origin in (int, float):
        return {"type": (Whole if origin is int else Number)(**bounds)}
    if origin is tuple:
        item_type, *rest = typing.get_args(kind)
        nargs = "*" if Ellipsis in rest else "+"
        return {"type": str if item_type is str else Whole(**bounds), "nargs": nargs}
    if origin is str:
        return {"type": _TYPES[item.name]} if item.name in _TYPES else {}
    return {"action": "append", "metavar": "NAME=VALUE"}


def _scale(sides: tuple[int, ...]) -> tuple[int, int]:
    if len(sides) > 2:
        raise UsageError(
            "--scale must be one side, or the smallest and the largest",
            received=" ".join(map(str, sides)),
        )
    return sides[0], sides[-1]


def add_spec_arguments(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    """Declare the options of a feature specification.

    Args:
        parser: The command's parser.
        many: Whether `--layer` takes several layers.
    """
    layers: dict[str, Any] = {"nargs": "+"} if many else {}
    parser.add_argument(
        "--layer", default=["fc7"] if many else "fc7", help="default: fc7", **layers
    )
    parser.add_argument(
        "--scales",
        type=WholeNumbers(minimum=1, maximum=MAX_SIDE),
        default=(),
        metavar="SIDE,SIDE,...",
        help="take the whole image, its shorter side rescaled to each of these pixels "
        "(default: the center crop, once)",
    )
    parser.add_argument(
        "--aggregate",
        default="stack",
        choices=("stack", "average", "max"),
        help="over the scales (default: stack)",
    )
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the mirrored image (default: with --scales)",
    )
    parser.add_argument(
        "--pool",
        choices=("flatten", "average", "max"),
        help="of a map (default: average with --scales, or flatten)",
    )
    parser.add_argument("--no-l2", action="store_true", help="do not normalize vectors to length 1")
    parser.add_argument(
        "--image-size",
        type=Whole(minimum=1, maximum=MAX_SIDE),
        metavar="PIXELS",
        help="for a network of no fixed size",
    )


def check_spec_arguments(args: argparse.Namespace) -> None:
    """Check the options of `add_spec_arguments` before TensorFlow starts.

    Raises:
        UsageError: If they do not go together.
    """
    pool = args.pool or ("average" if args.scales else "flatten")
    check_feature_options(args.scales, args.aggregate, pool, args.image_size)


def spec_from_arguments(args: argparse.Namespace, layer: str) -> FeatureSpec:
    """Return the feature specification of a layer that the options describe.

    Raises:
        UsageError: If an option is out of range.
    """
    from cnnkit.features import FeatureSpec

    return FeatureSpec.with_defaults(
        layer,
        scales=args.scales,
        aggregate=args.aggregate,
        flip=args.flip,
        pool=args.pool,
        l2=not args.no_l2,
        image_size=args.image_size,
    )

"""Options that describe how an image becomes a feature vector."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cnnkit.cli.console import parse_integers

if TYPE_CHECKING:
    from cnnkit.features import FeatureSpec


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
        type=parse_integers,
        default=(),
        metavar="SIDE,SIDE,...",
        help="take the whole image, its shorter side rescaled to each of these pixels "
        "(default: the center crop, once)",
    )
    parser.add_argument(
        "--aggregate", default="stack", help="over the scales: stack (default), average or max"
    )
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the mirrored image (default: with --scales)",
    )
    parser.add_argument(
        "--pool", help="of a map: average, max or flatten (default: average with --scales)"
    )
    parser.add_argument("--no-l2", action="store_true", help="do not normalize vectors to length 1")
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="for a network of no fixed size"
    )


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

"""Where maps speak for a class, without a gradient.

Maps weighted by the probability of the class where only they let the image through (Wang et al.
2020).
"""

from __future__ import annotations

import argparse

from cnnkit.cli.visualize._attribution import (
    add_layer_argument,
    add_target_arguments,
    draw_attribution_figure,
)
from cnnkit.cli.visualize.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_target_arguments(parser)
    add_layer_argument(parser)
    parser.add_argument("--batch-size", type=int, default=16, help="images at a time (default 16)")


def draw(args: argparse.Namespace) -> Figure:
    """Asks and draws."""
    from cnnkit.visualize import scorecam

    return draw_attribution_figure(args, scorecam, layer=args.layer, batch_size=args.batch_size)

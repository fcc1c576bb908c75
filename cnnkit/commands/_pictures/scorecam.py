"""Where maps speak for a class, without a gradient.

Maps weighted by the probability of the class where only they let the image through (Wang et al.
2020).
"""

from __future__ import annotations

import argparse

from cnnkit.commands._pictures._attribution import add_maps, add_question, draw_one
from cnnkit.commands._pictures._drawn import Drawn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_question(parser)
    add_maps(parser)
    parser.add_argument("--batch-size", type=int, default=16, help="images at a time (default 16)")


def draw(args: argparse.Namespace) -> Drawn:
    """Asks and draws."""
    from cnnkit.visualize import scorecam

    return draw_one(args, scorecam, layer=args.layer, batch_size=args.batch_size)

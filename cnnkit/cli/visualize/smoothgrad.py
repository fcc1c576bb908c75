"""How the score changes with each pixel, over noisy copies.

The mean of the gradients (Smilkov et al. 2017).
"""

from __future__ import annotations

import argparse

from cnnkit.cli.visualize._attribution import add_target_arguments, draw_attribution_figure
from cnnkit.cli.visualize.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_target_arguments(parser)
    parser.add_argument("--samples", type=int, default=50, help="copies (default 50)")
    parser.add_argument(
        "--noise", type=float, default=0.15, help="part of the range of values (default 0.15)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")


def draw(args: argparse.Namespace) -> Figure:
    """Asks and draws."""
    from cnnkit.visualize import smoothgrad

    return draw_attribution_figure(
        args, smoothgrad, samples=args.samples, noise=args.noise, seed=args.seed
    )

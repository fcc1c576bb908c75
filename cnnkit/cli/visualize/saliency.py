"""How the class's score changes with each pixel.

The gradient of the logit (Simonyan et al. 2013), its largest absolute value over the colors.
"""

from __future__ import annotations

import argparse

from cnnkit.cli.visualize._attribution import add_target_arguments, draw_attribution_figure
from cnnkit.cli.visualize.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_target_arguments(parser)


def draw(args: argparse.Namespace) -> Figure:
    """Asks and draws."""
    from cnnkit.visualize import saliency

    return draw_attribution_figure(args, saliency)

"""Where a layer's maps speak for a class.

Maps weighted by the mean gradient of the logit (Selvaraju et al. 2017).
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


def draw(args: argparse.Namespace) -> Figure:
    """Asks and draws."""
    from cnnkit.visualize import gradcam

    return draw_attribution_figure(args, gradcam, layer=args.layer)

"""Grad-CAM with weights that differ from place to place.

Maps weighted by their positive gradients (Chattopadhay et al. 2018).
"""

from __future__ import annotations

import argparse

from cnnkit.cli.visualize._attribution import (
    add_layer_argument,
    add_target_arguments,
    draw_attribution_figure,
)
from cnnkit.cli.visualize.figure import Figure

# What a module cannot be called.
NAME = "gradcam++"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_target_arguments(parser)
    add_layer_argument(parser)


def draw(args: argparse.Namespace) -> Figure:
    """Asks and draws."""
    from cnnkit.visualize import gradcam_plus_plus

    return draw_attribution_figure(args, gradcam_plus_plus, layer=args.layer)

"""Grad-CAM with weights that differ from place to place.

Maps weighted by their positive gradients (Chattopadhay et al. 2018).
"""

from __future__ import annotations

import argparse

from cnnkit.commands._pictures._attribution import add_maps, add_question, draw_one
from cnnkit.commands._pictures._drawn import Drawn

# What a module cannot be called.
NAME = "gradcam++"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_question(parser)
    add_maps(parser)


def draw(args: argparse.Namespace) -> Drawn:
    """Asks and draws."""
    from cnnkit.visualize import gradcam_plus_plus

    return draw_one(args, gradcam_plus_plus, layer=args.layer)

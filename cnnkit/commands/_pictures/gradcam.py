"""Where a layer's maps speak for a class.

Maps weighted by the mean gradient of the logit (Selvaraju et al. 2017).
"""

from __future__ import annotations

import argparse

from cnnkit.commands._pictures._attribution import add_maps, add_question, draw_one
from cnnkit.commands._pictures._drawn import Drawn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_question(parser)
    add_maps(parser)


def draw(args: argparse.Namespace) -> Drawn:
    """Asks and draws."""
    from cnnkit.visualize import gradcam

    return draw_one(args, gradcam, layer=args.layer)

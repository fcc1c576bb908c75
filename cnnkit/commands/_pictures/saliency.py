"""How the class's score changes with each pixel.

The gradient of the logit (Simonyan et al. 2013), its largest absolute value over the colours.
"""

from __future__ import annotations

import argparse

from cnnkit.commands._pictures._attribution import add_question, draw_one
from cnnkit.commands._pictures._drawn import Drawn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_question(parser)


def draw(args: argparse.Namespace) -> Drawn:
    """Asks and draws."""
    from cnnkit.visualize import saliency

    return draw_one(args, saliency)

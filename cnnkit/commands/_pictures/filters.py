"""The kernels of the first convolution.

Draws the kernels that see the image itself, dead and dominating ones marked (Krizhevsky et al.
2012, Fig. 3).
"""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.commands._pictures._arguments import add_model, load
from cnnkit.commands._pictures._drawn import Drawn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_model(parser)


def draw(args: argparse.Namespace) -> Drawn:
    """Looks at the kernels and draws them."""
    from cnnkit.figures import draw_filters
    from cnnkit.visualize import filters

    found = filters(load(args))
    draw_filters(found, args.output)
    return Drawn(
        f"{len(found.kernels)} kernels of {found.layer}, {int(found.dead.sum())} dead,"
        f" {int(found.dominating.sum())} dominating",
        {
            "layer": found.layer,
            "towers": found.towers,
            "dead": np.flatnonzero(found.dead).tolist(),
            "dominating": np.flatnonzero(found.dominating).tolist(),
        },
        {"kernels": found.kernels},
    )

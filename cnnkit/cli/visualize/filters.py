"""The kernels of the first convolution.

Draws the kernels that see the image itself, dead and dominating ones marked (Krizhevsky et al.
2012, Fig. 3).
"""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.visualize.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_network_arguments(parser)


def draw(args: argparse.Namespace) -> Figure:
    """Looks at the kernels and draws them."""
    from cnnkit.figures import draw_filters
    from cnnkit.visualize import filters

    found = filters(load_from_arguments(args).model)
    draw_filters(found, args.output)
    return Figure(
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

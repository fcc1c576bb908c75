"""Filters figure: the kernels of the first convolution."""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.picture import picture_options
from cnnkit.cli.visualize.figure import Figure, FigureCommand


def draw_filters_figure(args: argparse.Namespace) -> Figure:
    """Draw the kernels of the first convolution."""
    from cnnkit.figures import draw_filters
    from cnnkit.visualize import filters

    found = filters(load_from_arguments(args).model)
    draw_filters(found, args.output, **picture_options(args))
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


FILTERS = FigureCommand(
    """Draw the kernels of the first convolution.

Draws the kernels that are applied to the image itself and marks dead and dominating ones
(Krizhevsky et al. 2012, Fig. 3).""",
    add_network_arguments,
    draw_filters_figure,
)

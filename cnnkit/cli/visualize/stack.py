"""The way up to a unit and the way down again, step by step.

Draws what every layer makes of an image, and what the deconvnet makes of one unit's signal on its
way back (Zeiler & Fergus 2013, Fig. 1).
"""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.visualize.figure import (
    Figure,
    add_image_argument,
    add_unit_argument,
    read_image_for,
    require_active_unit,
    summary_facts,
    summary_text,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_network_arguments(parser)
    add_image_argument(parser)
    add_unit_argument(parser)


def draw(args: argparse.Namespace) -> Figure:
    """Goes up and down, and draws."""
    from cnnkit.figures import draw_layerwise
    from cnnkit.visualize import deconvnet, forward_steps

    model = load_from_arguments(args).model
    image = read_image_for(model, args)
    [result] = deconvnet(model, image, args.layer, args.unit)
    require_active_unit(result, args)
    steps = forward_steps(model, image[None], args.layer)
    signal = np.zeros_like(steps[-1].output)
    signal[(0, *result.position, result.unit)] = 1
    draw_layerwise(steps, signal, args.output)
    facts = {**summary_facts(result), "steps": [[step.layer, step.kind] for step in steps]}
    return Figure(summary_text(result), facts, {"projection": result.projection})

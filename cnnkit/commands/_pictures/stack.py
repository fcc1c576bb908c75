"""The way up to a unit and the way down again, step by step.

Draws what every layer makes of an image, and what the deconvnet makes of one unit's signal on its
way back (Zeiler & Fergus 2013, Fig. 1).
"""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.commands._pictures._arguments import (
    add_image,
    add_model,
    add_unit,
    check_fires,
    image_for,
    load,
)
from cnnkit.commands._pictures._drawn import Drawn, facts_of, said_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_model(parser)
    add_image(parser)
    add_unit(parser)


def draw(args: argparse.Namespace) -> Drawn:
    """Goes up and down, and draws."""
    from cnnkit.figures import draw_stack
    from cnnkit.visualize import climb, deconvnet

    model = load(args)
    image = image_for(model, args)
    [result] = deconvnet(model, image, args.layer, args.unit)
    check_fires(result, args)
    steps = climb(model, image[None], args.layer)
    signal = np.zeros_like(steps[-1].above)
    signal[(0, *result.position, result.unit)] = 1
    draw_stack(steps, signal, args.output)
    facts = {**facts_of(result), "steps": [[step.layer, step.does] for step in steps]}
    return Drawn(said_of(result), facts, {"projection": result.projection})

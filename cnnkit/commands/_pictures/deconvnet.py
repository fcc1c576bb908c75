"""What in an image made a unit fire.

Projects one unit's strongest activation down to the pixels (Zeiler & Fergus 2013).
"""

from __future__ import annotations

import argparse

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
    parser.add_argument("--rule", default="deconvnet", help="deconvnet, guided or gradient")


def draw(args: argparse.Namespace) -> Drawn:
    """Projects and draws."""
    from cnnkit.figures import draw_projection
    from cnnkit.visualize import deconvnet

    model = load(args)
    image = image_for(model, args)
    [result] = deconvnet(model, image, args.layer, args.unit, rule=args.rule)
    check_fires(result, args)
    draw_projection(image, result, args.output)
    return Drawn(said_of(result), facts_of(result), {"projection": result.projection})

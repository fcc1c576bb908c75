"""What in an image made a unit fire.

Projects one unit's strongest activation down to the pixels (Zeiler & Fergus 2013).
"""

from __future__ import annotations

import argparse

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
    parser.add_argument("--rule", default="deconvnet", help="deconvnet, guided or gradient")


def draw(args: argparse.Namespace) -> Figure:
    """Projects and draws."""
    from cnnkit.figures import draw_projection
    from cnnkit.visualize import deconvnet

    model = load_from_arguments(args).model
    image = read_image_for(model, args)
    [result] = deconvnet(model, image, args.layer, args.unit, rule=args.rule)
    require_active_unit(result, args)
    draw_projection(image, result, args.output)
    return Figure(summary_text(result), summary_facts(result), {"projection": result.projection})

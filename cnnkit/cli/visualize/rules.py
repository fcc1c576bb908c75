"""The three backward rules side by side.

Projects the strongest unit of each layer by the deconvnet, by guided back-propagation and by the
gradient.
"""

from __future__ import annotations

import argparse

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.visualize.figure import (
    Figure,
    add_image_argument,
    read_image_for,
    require_active_unit,
    summary_facts,
    summary_text,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_network_arguments(parser)
    add_image_argument(parser)
    parser.add_argument("--layer", required=True, nargs="+", help="for example conv3 conv5")


def draw(args: argparse.Namespace) -> Figure:
    """Projects by each rule, and draws."""
    from cnnkit.figures import draw_rules
    from cnnkit.visualize import deconvnet

    model = load_from_arguments(args).model
    image = read_image_for(model, args)
    rows = []
    for layer in args.layer:
        [first] = deconvnet(model, image, layer)
        require_active_unit(first, args)
        others = (
            deconvnet(model, image, layer, first.unit, first.position or None, rule=rule)[0]
            for rule in ("guided", "gradient")
        )
        rows.append([first, *others])
    draw_rules(image, rows, args.output)
    return Figure(
        "; ".join(summary_text(row[0]) for row in rows),
        {"projections": [summary_facts(result) for row in rows for result in row]},
        {f"{result.layer}_{result.rule}": result.projection for row in rows for result in row},
    )

"""The three backward rules side by side.

Projects the strongest unit of each layer by the deconvnet, by guided back-propagation and by the
gradient.
"""

from __future__ import annotations

import argparse

from cnnkit.commands._pictures._arguments import (
    add_image,
    add_model,
    check_fires,
    image_for,
    load,
)
from cnnkit.commands._pictures._drawn import Drawn, facts_of, said_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_model(parser)
    add_image(parser)
    parser.add_argument("--layer", required=True, nargs="+", help="for example conv3 conv5")


def draw(args: argparse.Namespace) -> Drawn:
    """Projects by each rule, and draws."""
    from cnnkit.figures import draw_rules
    from cnnkit.visualize import deconvnet

    model = load(args)
    image = image_for(model, args)
    rows = []
    for layer in args.layer:
        [first] = deconvnet(model, image, layer)
        check_fires(first, args)
        others = (
            deconvnet(model, image, layer, first.unit, first.position or None, rule=rule)[0]
            for rule in ("guided", "gradient")
        )
        rows.append([first, *others])
    draw_rules(image, rows, args.output)
    return Drawn(
        "; ".join(said_of(row[0]) for row in rows),
        {"projections": [facts_of(result) for row in rows for result in row]},
        {f"{result.layer}_{result.rule}": result.projection for row in rows for result in row},
    )

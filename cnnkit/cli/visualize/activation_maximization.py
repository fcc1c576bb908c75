"""Images that are made to excite units.

Begins with noise and goes along the gradient of the unit's answer (Simonyan et al. 2013,
section 2). Several units have one picture.
"""

from __future__ import annotations

import argparse

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.visualize.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_network_arguments(parser)
    parser.add_argument("--layer", help="for example conv5 (default: the classes)")
    parser.add_argument(
        "--unit", nargs="+", default=["0"], help="units, or names of classes (default 0)"
    )
    parser.add_argument("--steps", type=int, default=200, help="(default 200)")
    parser.add_argument(
        "--smoothness", type=float, default=1, help="weight of total variation (default 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    parser.add_argument("--image-size", type=int, help="for a network of no fixed size")


def draw(args: argparse.Namespace) -> Figure:
    """Makes the images and draws them."""
    from cnnkit.figures import draw_synthesized
    from cnnkit.visualize import activation_maximization

    options = {"steps": args.steps, "smoothness": args.smoothness, "seed": args.seed}
    made = activation_maximization(
        load_from_arguments(args).model,
        args.layer,
        args.unit,
        image_size=args.image_size,
        **options,
    )
    draw_synthesized(made, args.output)
    return Figure(
        "; ".join(
            f"{one.layer} unit {one.unit}: {one.start:.3g} for noise, {one.activation:.3g} now"
            for one in made
        ),
        {
            **options,
            "units": [
                {
                    "layer": one.layer,
                    "unit": one.unit,
                    "position": list(one.position),
                    "start": one.start,
                    "activation": one.activation,
                }
                for one in made
            ],
        },
        {f"image_{one.unit}": one.image for one in made},
    )

"""Activation maximization figure: images that are optimized to activate units."""

from __future__ import annotations

import argparse

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.picture import picture_options
from cnnkit.cli.values import COUNT, SEED, Number
from cnnkit.cli.visualize.figure import Figure, FigureCommand, add_image_size_argument


def add_maximization_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the figure."""
    add_network_arguments(parser)
    parser.add_argument("--layer", help="for example conv5 (default: the classes)")
    parser.add_argument(
        "--unit", nargs="+", default=["0"], help="units, or names of classes (default 0)"
    )
    parser.add_argument("--steps", type=COUNT, default=128, help="(default 128)")
    parser.add_argument(
        "--smoothness",
        type=Number(minimum=0),
        default=0,
        help="weight of total variation (default 0)",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of the noise (default 0)")
    add_image_size_argument(parser)


def draw_maximization(args: argparse.Namespace) -> Figure:
    """Optimize an image for each unit and draw the images."""
    from cnnkit.figures import draw_synthesized
    from cnnkit.visualize import activation_maximization

    options = {"steps": args.steps, "smoothness": args.smoothness, "seed": args.seed}
    images = activation_maximization(
        load_from_arguments(args).model,
        args.layer,
        args.unit,
        image_size=args.image_size,
        **options,
    )
    draw_synthesized(images, args.output, **picture_options(args))
    return Figure(
        "; ".join(
            f"{one.layer} unit {one.unit}: activation {one.start:.3g} for the noise at the start,"
            f" {one.activation:.3g} for the optimized image"
            + ("" if one.fires else ", so it did not fire: the image does not show what excites it")
            for one in images
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
                    "fires": one.fires,
                }
                for one in images
            ],
        },
        {f"image_{one.unit}": one.image for one in images},
    )


ACTIVATION_MAXIMIZATION = FigureCommand(
    """Optimize images to activate units.

Starts with noise and follows the gradient of the unit's activation (Simonyan et al. 2013, section
2), in the Fourier space of the image and under random transformations (Olah et al. 2017). The
images of several units are drawn in one figure.""",
    add_maximization_arguments,
    draw_maximization,
)

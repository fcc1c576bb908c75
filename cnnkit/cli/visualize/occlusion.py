"""Occlusion figure: the output of a network while a square covers one place after another."""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.picture import picture_options
from cnnkit.cli.read_image import read_image_for
from cnnkit.cli.values import COUNT, INDEX, LEVEL, image_file
from cnnkit.cli.visualize.figure import (
    Figure,
    FigureCommand,
    add_image_argument,
    add_target_argument,
    projection_facts,
)
from cnnkit.errors import UsageError


def add_occlusion_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the figure."""
    add_network_arguments(parser)
    add_image_argument(parser)
    parser.add_argument(
        "--square", type=COUNT, help="side in pixels (default: a seventh of the image's)"
    )
    parser.add_argument(
        "--stride", type=COUNT, help="step in pixels (default: a quarter of the square's side)"
    )
    parser.add_argument(
        "--fill", type=LEVEL, nargs="+", default=[128.0], help="gray, or red green blue, in 0..255"
    )
    add_target_argument(parser)
    parser.add_argument("--layer", help="layer whose map is recorded (default: the last maps)")
    parser.add_argument("--unit", type=INDEX, help="feature map (default: the strongest)")
    parser.add_argument(
        "--others", nargs="+", type=image_file, default=[], metavar="IMAGE",
        help="images whose projections of the same map are drawn as well",
    )  # fmt: skip
    parser.add_argument(
        "--edge",
        default="inside",
        choices=("inside", "clip"),
        help="squares beyond the edge: none (inside, the default), or cut off (clip)",
    )
    parser.add_argument(
        "--method", choices=("incremental", "plain"), help="default: the faster one"
    )
    parser.add_argument("--batch-size", type=COUNT, default=32, help="places at a time")


def _check(args: argparse.Namespace) -> None:
    if len(args.fill) not in (1, 3):
        raise UsageError(
            "--fill must be one level of gray, or three of red, green and blue",
            received=" ".join(f"{level:g}" for level in args.fill),
        )


def draw_occlusion_figure(args: argparse.Namespace) -> Figure:
    """Cover the image place by place and draw the outputs."""
    from cnnkit.figures import draw_occlusion
    from cnnkit.models.class_names import class_captions
    from cnnkit.visualize import deconvnet, occlusion

    model = load_from_arguments(args).model
    image = read_image_for(args.image, model)
    result = occlusion(
        model,
        image,
        args.square,
        args.stride,
        args.fill[0] if len(args.fill) == 1 else args.fill,
        args.method,
        args.batch_size,
        args.target,
        args.layer,
        args.unit,
        edge=args.edge,
    )
    others = []
    if args.others:
        images = np.stack([read_image_for(file, model) for file in args.others])
        others = deconvnet(model, images, result.layer, result.unit)
    names = class_captions(model)
    draw_occlusion(image, result, args.output, names=names, others=others, **picture_options(args))
    facts = {
        name: getattr(result, name)
        for name in (
            "target", "layer", "unit", "square", "method", "clean_probability", "clean_score",
            "clean_label", "clean_activity",
        )
    }  # fmt: skip
    facts |= {
        "fill": result.fill.tolist(),
        "class": names[result.target] if names else None,
        "projection": result.projection and projection_facts(result.projection),
        "others": [
            {"file": file, **projection_facts(one)}
            for file, one in zip(args.others, others, strict=False)
        ],
    }
    arrays = {
        name: getattr(result, name)
        for name in ("probability", "score", "label", "activity", "rows", "columns")
    }
    if result.projection:
        arrays["projection"] = result.projection.projection
    arrays |= {f"projection_of_other_{one.image}": one.projection for one in others}
    class_text = f"class {names[result.target] if names else result.target}"
    least = np.unravel_index(result.probability.argmin(), result.probability.shape)
    height, width = result.square
    summary = (
        f"{class_text} has the probability {result.clean_probability:.3g} in the whole image;"
        f" with a square of {height} x {width} pixels covered it is {result.probability.min():.3g}"
        f" (top left at row {result.rows[least[0]]}, column {result.columns[least[1]]})"
        f" to {result.probability.max():.3g}, over {result.probability.size:,} places"
    )
    return Figure(summary, facts, arrays)


OCCLUSION = FigureCommand(
    """Cover an image place by place and draw the network's outputs.

Draws the activity of the strongest map and its projection, the probability of the class and the
most probable class (Zeiler & Fergus 2013, Fig. 7). With --others the map's projections of other
images stand beside that of the image, as in the paper.""",
    add_occlusion_arguments,
    draw_occlusion_figure,
    _check,
)

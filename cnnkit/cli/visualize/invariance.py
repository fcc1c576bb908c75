"""Invariance figure: features and probabilities of translated, scaled and rotated images."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.picture import picture_options
from cnnkit.cli.values import LEVEL, image_file
from cnnkit.cli.visualize.figure import Figure, FigureCommand, add_target_argument
from cnnkit.errors import UsageError

TRANSFORMS = ("translation", "scale", "rotation")


def add_invariance_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the figure."""
    add_network_arguments(parser)
    parser.add_argument("image", metavar="IMAGE", type=image_file, nargs="+", help="image files")
    add_target_argument(
        parser, nargs="+", help="their classes, by name or number (default: the most probable)"
    )
    parser.add_argument(
        "--layer",
        nargs="+",
        help="(default: the first layer with weights and the last but one)",
    )
    parser.add_argument(
        "--transform", nargs="+", default=list(TRANSFORMS), choices=TRANSFORMS,
        help="(default: all three)",
    )  # fmt: skip
    parser.add_argument("--fill", type=LEVEL, default=128, help="beyond the image (default 128)")


def _check(args: argparse.Namespace) -> None:
    if args.target is not None and len(args.target) != len(args.image):
        raise UsageError(
            "--target must name one class for each image",
            expected=f"{len(args.image)} classes",
            received=f"{len(args.target)} ({', '.join(args.target)})",
        )


def draw_invariance_figure(args: argparse.Namespace) -> Figure:
    """Measure the distances and probabilities and draw them."""
    from cnnkit.cli.read_image import read_image_for
    from cnnkit.figures import draw_invariance
    from cnnkit.models.class_names import class_captions, class_index
    from cnnkit.visualize import invariance

    model = load_from_arguments(args).model
    if model.input_shape[1] is None:
        raise UsageError(
            f"{args.network} must be a classifier of images of one size, not of any size"
        )
    images = np.stack([read_image_for(file, model) for file in args.image])
    targets = None
    if args.target is not None:
        targets = [class_index(model, target) for target in args.target]
    rows = [
        invariance(model, images, name, layers=args.layer, labels=targets, fill=args.fill)
        for name in args.transform
    ]
    known = class_captions(model)
    classes = [known[label] if known else str(label) for label in rows[0].labels]
    names = [f"{Path(f).stem}: {name}" for f, name in zip(args.image, classes, strict=True)]
    draw_invariance(images, rows, args.output, names=names, fill=args.fill, **picture_options(args))
    return Figure(
        "; ".join(
            f"{row.transform}: mean probability {row.probabilities.mean():.2f}, at its lowest"
            f" {row.probabilities.min():.2f}"
            for row in rows
        ),
        {
            "images": args.image,
            "classes": classes,
            "classes_are": "the most probable of the image as it is"
            if args.target is None
            else "as given",
            "fill": args.fill,
            "layers": list(rows[0].layers),
            "transforms": {
                row.transform: {
                    "amounts": row.amounts.tolist(),
                    "probabilities": row.probabilities.tolist(),
                }
                for row in rows
            },
        },
        {
            f"{row.transform}_{name}": values
            for row in rows
            for name, values in (
                ("amounts", row.amounts),
                ("distances", row.distances),
                ("norms", row.norms),
                ("probabilities", row.probabilities),
            )
        },
    )


INVARIANCE = FigureCommand(
    """Draw how features change when an image is translated, scaled or rotated.

Draws the distance of the features of a lower and an upper layer from those of the original image,
and the probability of its class (Zeiler & Fergus 2013, Fig. 5).""",
    add_invariance_arguments,
    draw_invariance_figure,
    _check,
)

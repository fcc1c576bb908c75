"""How far features move when an image is moved, scaled or turned.

Draws the distance of the features of a lower and an upper layer from those of the image as it is,
and the probability of its class (Zeiler & Fergus 2013, Fig. 5).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.visualize.figure import Figure
from cnnkit.errors import UsageError, unknown_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the picture's arguments."""
    add_network_arguments(parser)
    parser.add_argument("image", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument(
        "--label", nargs="+", help="their classes, by name or number (default: the most probable)"
    )
    parser.add_argument(
        "--layer",
        nargs="+",
        help="(default: the first one with weights and the last but one)",
    )
    parser.add_argument(
        "--transform", nargs="+", default=["translation", "scale", "rotation"],
        help="translation, scale, rotation (default: all three)",
    )  # fmt: skip
    parser.add_argument("--fill", type=float, default=128, help="beyond the image (default 128)")


def draw(args: argparse.Namespace) -> Figure:
    """Measures and draws."""
    from cnnkit.cli.read_image import read_image
    from cnnkit.figures import draw_invariance
    from cnnkit.models import class_names
    from cnnkit.visualize import invariance

    model = load_from_arguments(args).model
    if model.input_shape[1] is None:
        raise UsageError(
            "The network takes images of any size", expected="a classifier of one size"
        )
    images = np.stack([read_image(file, model.input_shape[1]) for file in args.image])
    known = class_names(model) or ()
    labels = None if args.label is None else [_number(label, known) for label in args.label]
    rows = [
        invariance(model, images, name, layers=args.layer, labels=labels, fill=args.fill)
        for name in args.transform
    ]
    classes = [known[label] if known else str(label) for label in rows[0].labels]
    names = [f"{Path(f).stem}: {name}" for f, name in zip(args.image, classes, strict=True)]
    draw_invariance(images, rows, args.output, names=names, fill=args.fill)
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
            if args.label is None
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


def _number(label: str, known: tuple[str, ...]) -> int:
    if label in known:
        return known.index(label)
    if label.isdigit():
        return int(label)
    raise unknown_name("class", label, known)

"""What the pictures of attribution share: one image, one class, one method."""

from __future__ import annotations

import argparse

import numpy as np

from cnnkit.cli.load_network import add_network_arguments, load_from_arguments
from cnnkit.cli.visualize.figure import (
    Figure,
    add_image_argument,
    read_image_for,
)
from cnnkit.errors import DataError


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the network, the image and the class."""
    add_network_arguments(parser)
    add_image_argument(parser)
    parser.add_argument("--label", help="class, by name or number (default: the most probable)")


def add_layer_argument(parser: argparse.ArgumentParser) -> None:
    """Declares the layer whose maps are weighted."""
    parser.add_argument("--layer", help="layer of the maps (default: the last convolution)")


def draw_attribution_figure(args: argparse.Namespace, method, **options) -> Figure:
    """Asks a method and draws what it answers."""
    from cnnkit.figures import draw_attribution
    from cnnkit.models import class_names

    model = load_from_arguments(args).model
    image = read_image_for(model, args)
    [seen] = method(model, image, args.label, **options)
    if not seen.map.any():
        raise DataError(
            f"Nothing in {args.image} counts for class {seen.target}, says {seen.method}",
            hint="Ask for another layer, or for the most probable class",
        )
    names = class_names(model)
    name = names[seen.target] if names else None
    draw_attribution(image, seen, args.output, name=name)
    row, column = map(int, np.unravel_index(seen.map.argmax(), seen.map.shape))
    facts = {
        "method": seen.method,
        "target": seen.target,
        "class": name,
        "score": seen.score,
        "layer": seen.layer,
        "largest_at": [row, column],
        "largest": float(seen.map.max()),
        **{key: value for key, value in options.items() if key != "layer"},
    }
    arrays = {"map": seen.map, "gradient": seen.gradient, "grid": seen.grid}
    return Figure(
        f"{seen.method} of {name or f'class {seen.target}'}, logit {seen.score:.3g},"
        f" largest at row {row}, column {column}",
        facts,
        {key: values for key, values in arrays.items() if values is not None},
    )

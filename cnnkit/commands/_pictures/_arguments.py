"""Arguments and checks that several pictures share."""

from __future__ import annotations

import argparse

from cnnkit.errors import DataError

EXAMPLE = "for example conv5"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declares the network that is looked into."""
    parser.add_argument("model", metavar="MODEL", help="run folder or .keras file")


def add_image(parser: argparse.ArgumentParser) -> None:
    """Declares the image that is looked at."""
    parser.add_argument("image", metavar="IMAGE", help="image file")


def add_unit(parser: argparse.ArgumentParser) -> None:
    """Declares one unit of one layer."""
    parser.add_argument("--layer", required=True, help=EXAMPLE)
    parser.add_argument("--unit", type=int, help="feature map (default: the strongest)")


def load(args: argparse.Namespace):
    """Returns the network."""
    from cnnkit.models import load_model

    return load_model(args.model)


def image_for(model, args: argparse.Namespace):
    """Returns the image, (h, w, 3) RGB in 0..255, of the size of the network."""
    from cnnkit.commands._image import read_image

    return read_image(args.image, model.input_shape[1])


def check_fires(result, args: argparse.Namespace) -> None:
    """Makes sure that there is something to see.

    Raises:
        DataError: If the unit does not fire.
    """
    if result.activation == 0 or not result.projection.any():
        raise DataError(
            f"Unit {result.unit} of {result.layer} does not fire on {args.image}",
            hint="Leave --unit out to take the strongest one",
        )

"""Arguments and checks that several pictures share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cnnkit.errors import DataError, unknown_name

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


def add_units(parser: argparse.ArgumentParser, *, count: int = 6) -> None:
    """Declares several units of several layers."""
    parser.add_argument("--layer", required=True, nargs="+", help="for example conv3 conv5")
    parser.add_argument("--unit", type=int, nargs="+", help="feature maps of every layer")
    parser.add_argument(
        "--count", type=int, default=count, help=f"else so many, drawn by chance (default {count})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")


def split_of(dataset: str, split: str, *, seed: int = 0):
    """Returns the images of a dataset's split.

    Raises:
        UsageError: If there is none of that name.
    """
    from cnnkit.data import load_source

    splits = load_source(dataset, seed=seed).splits
    if split not in splits:
        raise unknown_name("split", split, splits)
    return splits[split]


@contextmanager
def counted(total: int) -> Iterator[Callable[[int], object]]:
    """Yields what hears of images that are done: a bar, where standard error is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit=" images", leave=False, disable=None) as bar:
        yield bar.update


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
    if result.activation != 0 and result.projection.any():
        return
    if getattr(args, "unit", None) is None:
        raise DataError(
            f"No unit of {result.layer} fires on {args.image}", hint="Take another layer or image"
        )
    raise DataError(
        f"Unit {result.unit} of {result.layer} does not fire on {args.image}",
        hint="Leave --unit out to take the strongest one",
    )

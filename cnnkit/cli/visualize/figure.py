"""What a picture leaves behind: the PNG, and beside it what it was drawn from."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._files import staged_file, write_text
from cnnkit.errors import DataError, unknown_name


@dataclass(frozen=True)
class Figure:
    """What is said of a picture that was drawn.

    Attributes:
        said: One line for the terminal.
        facts: What JSON can hold: layers, units, activations, rules, scales.
        arrays: The rest, by name.
    """

    said: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def write_beside(self, picture: Path) -> None:
        """Writes `PICTURE.json` and, where there are arrays, `PICTURE.npz`.

        The whole name of the picture is kept, so that they replace only what belongs to it.
        """
        write_text(Path(f"{picture}.json"), json.dumps(self.facts, indent=2) + "\n")
        if self.arrays:
            with staged_file(Path(f"{picture}.npz")) as aside, aside.open("wb") as file:
                np.savez_compressed(file, **self.arrays)


def summary_facts(result) -> dict[str, Any]:
    """Returns what is to be told of a projection."""
    return {
        "layer": result.layer,
        "unit": result.unit,
        "rule": result.rule,
        "image": result.image,
        "activation": result.activation,
        "position": list(result.position),
        "box": [result.box.top, result.box.left, result.box.bottom, result.box.right],
    }


def summary_text(result) -> str:
    """Returns the same in one line."""
    return f"{result.layer} unit {result.unit}, activation {result.activation:.3g}{result.position_text}"


EXAMPLE = "for example conv5"


def add_image_argument(parser: argparse.ArgumentParser) -> None:
    """Declares the image that is looked at."""
    parser.add_argument("image", metavar="IMAGE", help="image file")


def add_unit_argument(parser: argparse.ArgumentParser) -> None:
    """Declares one unit of one layer."""
    parser.add_argument("--layer", required=True, help=EXAMPLE)
    parser.add_argument("--unit", type=int, help="feature map (default: the strongest)")


def add_units_argument(parser: argparse.ArgumentParser, *, count: int = 6) -> None:
    """Declares several units of several layers."""
    parser.add_argument("--layer", required=True, nargs="+", help="for example conv3 conv5")
    parser.add_argument("--unit", type=int, nargs="+", help="feature maps of every layer")
    parser.add_argument(
        "--count", type=int, default=count, help=f"else so many, drawn by chance (default {count})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")


def select_split(dataset: str, split: str, *, seed: int = 0):
    """Returns the images of a dataset's split.

    Raises:
        UsageError: If there is none of that name.
    """
    from cnnkit.data import load_dataset

    splits = load_dataset(dataset, seed=seed).splits
    if split not in splits:
        raise unknown_name("split", split, splits)
    return splits[split]


def read_image_for(model, args: argparse.Namespace):
    """Returns the image, (h, w, 3) RGB in 0..255, of the size of the network."""
    from cnnkit.cli.read_image import read_image

    return read_image(args.image, model.input_shape[1])


def require_active_unit(result, args: argparse.Namespace) -> None:
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

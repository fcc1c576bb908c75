"""Result and shared arguments of the figures of `cnnkit visualize`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnkit._files import json_text, write_text
from cnnkit._staging import staged_file
from cnnkit.cli.console import print_left_out
from cnnkit.cli.deprecated import deprecated_option
from cnnkit.cli.picture import OUTPUT
from cnnkit.cli.read_image import command_decoding
from cnnkit.cli.values import COUNT, INDEX, DatasetSpec, image_file
from cnnkit.errors import DataError

if TYPE_CHECKING:
    from cnnkit.data import Split
    from cnnkit.visualize import Projection


# Endings that are appended to the name of a picture for the files of its facts and its arrays.
BESIDE = FACTS, ARRAYS = ".json", ".npz"
# Of every dataset.
SPLITS = ("test", "train")


@dataclass(frozen=True)
class Figure:
    """Summary and data of a figure that was drawn.

    Attributes:
        summary: One line for the terminal.
        facts: Values that JSON can hold: layers, units, activations, rules, scales.
        arrays: Arrays by name.
        table: Rows that are printed below the summary.
    """

    summary: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    table: Sequence[Mapping[str, object]] = ()

    def write_beside(self, picture: Path) -> None:
        """Write `PICTURE.json` and, if there are arrays, `PICTURE.npz`.

        They keep the whole name of the picture, so that they replace only its own data.
        """
        write_text(Path(f"{picture}{FACTS}"), json_text(self.facts, indent=2) + "\n")
        if self.arrays:
            with staged_file(Path(f"{picture}{ARRAYS}")) as staged, staged.open("wb") as file:
                np.savez_compressed(file, **dict[str, Any](self.arrays))


@dataclass(frozen=True)
class FigureCommand:
    """A figure of `cnnkit visualize`.

    Attributes:
        description: Text of `--help`; its first line is the summary in the list of figures.
        add_arguments: Declares the arguments of the figure.
        draw: Draws the figure; or several, by the file that each was drawn to. TensorFlow is
            imported here only, so that `--help` is fast.
        check: Checks arguments together, before TensorFlow starts.
    """

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    draw: Callable[[argparse.Namespace], Figure | dict[Path, Figure]]
    check: Callable[[argparse.Namespace], object] = lambda args: None

    @property
    def summary(self) -> str:
        """The first line of the description, without its full stop."""
        return self.description.splitlines()[0].rstrip(".")


def check_files_free(picture: Path) -> None:
    """Check that none of the files of a figure exists.

    Raises:
        UsageError: If one does.
    """
    from cnnkit.figures.canvas import check_free

    for ending in ("", *BESIDE):
        check_free(Path(f"{picture}{ending}"), OUTPUT)


def projection_facts(result: Projection) -> dict[str, Any]:
    """Return the facts of a projection, without its pixels."""
    return {
        "layer": result.layer,
        "unit": result.unit,
        "rule": result.rule,
        "image": result.image,
        "activation": result.activation,
        "position": list(result.position),
        "box": [result.box.top, result.box.left, result.box.bottom, result.box.right],
    }


def projection_summary(result: Projection) -> str:
    """Return the layer, unit, activation and position of a projection in one line."""
    return (
        f"{result.layer} unit {result.unit}, activation {result.activation:.3g}"
        f"{result.position_text}"
    )


RULES = ("deconvnet", "guided", "gradient")


def add_image_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the image file."""
    parser.add_argument("image", metavar="IMAGE", type=image_file, help="image file")


def add_target_argument(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Declare the class, which was `--label` before version 0.2.

    Args:
        parser: The figure's parser.
        **options: Further arguments of `add_argument`, such as `nargs="+"` or another `help`.
    """
    text = "class, by name or number (default: the most probable)"
    parser.add_argument("--target", **{"help": text, **options})
    kept = {name: value for name, value in options.items() if name != "help"}
    deprecated_option(parser, "--label", "--target", **kept)


def add_unit_argument(parser: argparse.ArgumentParser) -> None:
    """Declare one unit of one layer."""
    parser.add_argument("--layer", required=True, help="for example conv5")
    parser.add_argument("--unit", type=INDEX, help="feature map (default: the strongest)")


def add_layers_argument(parser: argparse.ArgumentParser) -> None:
    """Declare one or several layers."""
    parser.add_argument("--layer", required=True, nargs="+", help="for example conv3 conv5")


def add_split_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Declare the split of a dataset."""
    other = next(split for split in SPLITS if split != default)
    parser.add_argument(
        "--split", default=default, choices=SPLITS, help=f"{default} (default) or {other}"
    )


def add_dataset_argument(parser: argparse.ArgumentParser) -> None:
    """Declare a dataset."""
    parser.add_argument(
        "dataset", metavar="DATASET", type=DatasetSpec(), help="digits, folder:PATH or tfds:NAME"
    )


def add_rule_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the backward rule of projections."""
    parser.add_argument(
        "--rule", default="deconvnet", choices=RULES, help="backward rule (default: deconvnet)"
    )


def add_image_size_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the side of the images for a network of variable input size."""
    parser.add_argument("--image-size", type=COUNT, help="for a network of no fixed size")


def load_split(dataset: str, split: str, *, seed: int = 0) -> Split:
    """Load a dataset and return one of its splits, `test` or `train`."""
    from cnnkit.data import load_dataset

    source = load_dataset(dataset, seed=seed, decoding=command_decoding())
    print_left_out(source)
    return source.splits[split]


def require_active_unit(result: Projection, args: argparse.Namespace) -> None:
    """Check that a unit is active, so that there is something to draw.

    Raises:
        DataError: If its activation or its projection is zero.
    """
    if result.activation != 0 and result.projection.any():
        return
    if getattr(args, "unit", None) is None:
        raise DataError(
            f"No unit of {result.layer} is active on {args.image}",
            hint="Take another layer or image",
        )
    raise DataError(
        f"Unit {result.unit} of {result.layer} is not active on {args.image}",
        hint="Leave --unit out to take the strongest one",
    )

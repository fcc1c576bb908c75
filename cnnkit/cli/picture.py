"""Options of commands that draw a picture: its file, its resolution, whether to replace a file."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.cli.values import OutputFile, Whole
from cnnkit.errors import UsageError

if TYPE_CHECKING:
    from cnnkit.figures import PictureOptions

OUTPUT = "--output"


def add_picture_arguments(
    parser: argparse._ActionsContainer,
    option: str = OUTPUT,
    *,
    required: bool = False,
    help: str = "file of the figure",
) -> None:
    """Declare the picture file, and the options `--dpi` and `--overwrite`.

    Args:
        parser: A parser or an argument group.
        option: The option that names the file.
        required: Whether it must be given.
        help: What the file is.
    """
    parser.add_argument(
        option,
        required=required,
        type=OutputFile(".png", ".svg", ".pdf"),
        metavar="PICTURE",
        help=f"{help}: .png, .svg or .pdf",
    )
    parser.add_argument(
        "--dpi",
        type=Whole(minimum=10, maximum=1200),
        help="pixels per inch of the picture (default: 150)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that exist (default: refuse)"
    )


def picture_options(args: argparse.Namespace) -> PictureOptions:
    """Return the options of `add_picture_arguments` as arguments of the functions that draw."""
    return {"dpi": args.dpi, "overwrite": args.overwrite}


def check_picture_arguments(
    args: argparse.Namespace, option: str = OUTPUT, *, beside: Iterable[str] = ()
) -> Path:
    """Check that the picture can be written, and return its path.

    Args:
        args: The parsed arguments, of which the option is given.
        option: The option that names the file.
        beside: Endings that are appended to the name of the picture for files beside it.

    Raises:
        UsageError: As `cnnkit.figures.canvas.check_picture`, or if matplotlib is not installed.
    """
    from cnnkit.figures.canvas import check_free, check_picture, require_matplotlib

    path = check_picture(getattr(args, option[2:]), option=option, **picture_options(args))
    if not args.overwrite:
        for ending in beside:
            check_free(Path(f"{path}{ending}"), option)
    require_matplotlib()
    return path


def refuse_picture_options(args: argparse.Namespace, option: str) -> None:
    """Refuse `--dpi` and `--overwrite` without the picture that they are for.

    Raises:
        UsageError: If one of them is given.
    """
    for name, given in (("--dpi", args.dpi is not None), ("--overwrite", args.overwrite)):
        if given:
            raise UsageError(f"{name} requires {option} PICTURE")

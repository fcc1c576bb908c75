"""Helpers of all figures: a figure without a window, its texts, its file."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from cnnkit._staging import staged_file, write_errors
from cnnkit.errors import UsageError, escape_controls, truncate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Endings of the names of picture files.
FORMATS = (".png", ".svg", ".pdf")
DPI_RANGE = range(10, 1201)
# Pixels per inch by default: the smallest texts, of 7 points, are 11 pixels high.
DEFAULT_DPI = 110
# Pixels of a picture, at most: matplotlib needs some 10 bytes for each.
MAX_PIXELS = 200_000_000
# Characters of a text and of a name in a figure, at most: a longer one takes minutes to draw.
_MAX_TEXT = 2000
_MAX_NAME = 200
# Matplotlib reads `$...$` in a text as a formula, and fails if it is none. LaTeX runs programs.
_PLAIN_TEXT: Any = {"text.parse_math": False, "text.usetex": False}
# Two pictures of the same results are the same bytes. Publishers ask for TrueType fonts in a PDF.
_FILE_STYLE: Any = {"svg.hashsalt": "cnnkit", "pdf.fonttype": 42}
_METADATA = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


class PictureOptions(TypedDict, total=False):
    """How a picture is written.

    Attributes:
        dpi: Pixels per inch, 10 to 1200; None takes the figure's own number, 110 to 150. Lines and
            texts of .svg and .pdf files have no pixels, and the images in them do.
        overwrite: Whether to replace a file that exists. Without it, an existing file is an error.

    Example:
        >>> from cnnkit.figures import draw_training_curves
        >>> draw_training_curves(runs, "curves.svg", overwrite=True)  # doctest: +SKIP
    """

    dpi: int | None
    overwrite: bool


def check_picture(
    path: str | Path, *, option: str | None = None, **picture: Unpack[PictureOptions]
) -> Path:
    """Check that a picture can be written to a path, and return the path.

    Args:
        path: The file to write.
        option: The option of the command line that named it, for the error; None for an argument.
        **picture: `dpi` and `overwrite`.

    Raises:
        UsageError: If the name ends in none of `FORMATS`, the folder cannot be written, the file
            exists and may not be replaced, or `dpi` is out of range.
    """
    path, name = Path(path), option or "`path`"
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{name} must end in .png, .svg or .pdf", received=path if path.name else "no name"
        )
    folder = next(one for one in path.absolute().parents if one.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"{name} must be in a folder that you may write to", received=f"{path} in {folder}"
        )
    dpi = picture.get("dpi")
    if dpi is not None and dpi not in DPI_RANGE:
        raise UsageError(
            f"`dpi` must be {DPI_RANGE[0]} to {DPI_RANGE[-1]}",
            received=dpi,
        )
    if path.is_dir():
        raise UsageError(f"{name} must be a file", received=f"the folder {path}")
    if not picture.get("overwrite", False):
        check_free(path, option)
    return path


def check_free(path: Path, option: str | None, argument: str = "path") -> None:
    """Check that there is no file yet.

    Args:
        path: The file to write.
        option: The option of the command line that named it; None for an argument.
        argument: Name of the argument.

    Raises:
        UsageError: If it exists.
    """
    if path.exists():
        raise UsageError(
            f"{option or f'`{argument}`'} must be a new file, and {path} exists",
            hint="`overwrite=True` replaces it",
        )


def new_figure(width: float, height: float) -> Figure:
    """Create a matplotlib figure without a window and without global state.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def require_matplotlib() -> None:
    """Check that matplotlib is installed, without importing it.

    Raises:
        UsageError: If it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "`matplotlib` is not installed, which draws the figures",
            hint="Install it: pip install matplotlib",
        )


def save_figure(
    figure: Figure,
    path: str | Path,
    *,
    default_dpi: int = DEFAULT_DPI,
    **picture: Unpack[PictureOptions],
) -> None:
    """Write a figure to a picture file, whole or not at all. Its texts are drawn as they are.

    Args:
        figure: The figure.
        path: File to write: .png, .svg or .pdf.
        default_dpi: Pixels per inch where `dpi` is not given.
        **picture: `dpi` and `overwrite`.

    Raises:
        UsageError: As `check_picture`, or if the picture has more than `MAX_PIXELS`.
    """
    from matplotlib import rc_context

    path, dpi = check_picture(path, **picture), picture.get("dpi") or default_dpi
    width, height = figure.get_size_inches()
    if width * height * dpi**2 > MAX_PIXELS:
        raise UsageError(
            f"The picture would have more than {MAX_PIXELS:,} pixels",
            expected=f"at most {math.isqrt(int(MAX_PIXELS / (width * height)))} dpi",
            received=f"{width:.0f} x {height:.0f} inches at {dpi} dpi",
        )
    _make_plain(figure)
    ending = path.suffix.lower()
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Ticks are made while they are drawn.
    with staged_file(path) as staged, rc_context(_PLAIN_TEXT | _FILE_STYLE):
        figure.savefig(staged, format=ending[1:], dpi=dpi, metadata=_METADATA.get(ending))


def lay_out(figure: Figure, **options: Any) -> None:
    """Move the axes of a figure so that their texts do not overlap: `Figure.tight_layout`."""
    from matplotlib import rc_context

    _make_plain(figure)
    with rc_context(_PLAIN_TEXT):
        figure.tight_layout(**options)


def plain_name(name: object) -> str:
    r"""Return a name as one line for a tick or a legend, which leaves out names with `_` in front.

    Example:
        >>> plain_name("cat\nx"), plain_name("_hidden")
        ('cat\\nx', ' _hidden')
    """
    text = escape_controls(truncate(str(name), _MAX_NAME))
    return f" {text}" if text.startswith("_") else text


def _make_plain(figure: Figure) -> None:
    """Switch the formulas in the texts of a figure off, and escape control characters."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_usetex(False)
        lines = truncate(text.get_text(), _MAX_TEXT).split("\n")
        text.set_text("\n".join(map(escape_controls, lines)))


def hide_axes(axes: Iterable[Axes]) -> None:
    """Hide the frames, ticks and labels of axes."""
    for one in axes:
        one.set_axis_off()

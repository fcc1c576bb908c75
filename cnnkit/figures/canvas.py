"""Helpers of all figures: a figure without a window, its texts, its file."""

from __future__ import annotations

import importlib.util
import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from cnnkit._staging import staged_file, write_errors
from cnnkit.errors import UsageError, escape_controls, truncate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Endings of the names of picture files.
FORMATS = (".png", ".svg", ".pdf")
DPI_RANGE = range(10, 1201)
# Pixels per inch by default: a figure as wide as a slide has some 2000 pixels.
DEFAULT_DPI = 150
# Points of titles, of axes and captions, and of numbers along axes: they can be read from the last
# row on a slide that is as wide as the figure.
TITLE, TEXT, TICKS = 12, 11, 9
# Width of a letter as part of the size of its font, on average, and of a line's height.
_LETTER, _LINE = 0.56, 1.3
# Inches between a caption and the edges of the figure.
_MARGIN = 0.1
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
        dpi: Pixels per inch, 10 to 1200; None takes 150. Lines and
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
    **picture: Unpack[PictureOptions],
) -> None:
    """Write a figure to a picture file, whole or not at all. Its texts are drawn as they are.

    Args:
        figure: The figure.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`.

    Raises:
        UsageError: As `check_picture`, or if the picture has more than `MAX_PIXELS`.
    """
    from matplotlib import rc_context

    path, dpi = check_picture(path, **picture), picture.get("dpi") or DEFAULT_DPI
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


def wrap_text(text: str, width: float, size: float = TEXT) -> str:
    r"""Break the lines of a text that are wider than some inches.

    Args:
        text: The text.
        width: Inches.
        size: Points of the font.

    Example:
        >>> wrap_text("probability of class Motorbikes", 2, 12)
        'probability of class\nMotorbikes'
    """
    letters = max(8, int(width * 72 / (_LETTER * size)))
    lines = [textwrap.wrap(line, letters) or [""] for line in text.split("\n")]
    return "\n".join(part for line in lines for part in line)


def text_height(text: str, size: float = TEXT) -> float:
    """Return the inches that the lines of a text take, with the margins above and below them."""
    return 2 * _MARGIN + (1 + text.count("\n")) * _LINE * size / 72


def add_caption(figure: Figure, text: str) -> None:
    """Write a text, of which `wrap_text` broke the lines, below the axes of a figure."""
    height = figure.get_size_inches()[1]
    figure.text(0.5, _MARGIN / height, text, ha="center", va="bottom", fontsize=TEXT)


def tile_pictures(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Arrange pictures in rows, white between them and where one is missing.

    Args:
        pictures: (h, w, 3) in 0..1, of one size.
        columns: Pictures in a row.
    """
    height, width = pictures[0].shape[:2]
    gap = max(1, min(height, width) // 20)
    rows = -(-len(pictures) // columns)
    sides = rows * (height + gap) - gap, columns * (width + gap) - gap
    pixels = np.ones((*sides, 3), np.float32)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        pixels[top : top + height, left : left + width] = picture
    return pixels


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

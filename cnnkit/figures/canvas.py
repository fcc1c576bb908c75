"""Helpers of all figures: a figure without a window, colors centered on gray, atomic files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnkit._staging import staged_file
from cnnkit.errors import UsageError, escape_controls, truncate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Characters of a text and of a name in a figure, at most: a longer one takes minutes to draw.
_MAX_TEXT = 2000
_MAX_NAME = 200
# Matplotlib reads `$...$` in a text as a formula, and fails if it is none. LaTeX runs programs.
_PLAIN_TEXT: Any = {"text.parse_math": False, "text.usetex": False}


def new_figure(width: float, height: float) -> Figure:
    """Create a matplotlib figure without a window and without global state.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "`matplotlib` is not installed, which draws the figures",
            hint="Install it: pip install matplotlib",
        ) from error
    return Figure(figsize=(width, height))


def save_figure(figure: Figure, path: str | Path, *, dpi: int) -> None:
    """Write a figure to a PNG file, whole or not at all. Its texts are drawn as they are."""
    from matplotlib import rc_context

    _make_plain(figure)
    # Ticks are made while they are drawn.
    with staged_file(Path(path)) as staged, rc_context(_PLAIN_TEXT):
        figure.savefig(staged, format="png", dpi=dpi)


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


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Scale pixels of 0..255 to 0..1, and repeat a single channel: matplotlib would color it.

    Args:
        image: (h, w, 3) RGB or (h, w, 1) gray, in 0..255.

    Returns:
        (h, w, 3).
    """
    return _repeat_gray(np.clip(image / 255, 0, 1))


def _repeat_gray(pixels: np.ndarray) -> np.ndarray:
    is_gray = pixels.ndim == 3 and pixels.shape[-1] == 1
    return np.repeat(pixels, 3, axis=-1) if is_gray else pixels


def center_on_gray(values: np.ndarray, *, clip_fraction: float = 0.0) -> np.ndarray:
    """Scale signed values to 0..1 with zero at 0.5, which keeps sign and color.

    Args:
        values: Signed values, of any shape.
        clip_fraction: Fraction of the nonzero values, the largest ones, that become black or white.

    Returns:
        Values in 0..1, of the same shape; a single channel (h, w, 1) is repeated to three.
    """
    magnitudes = np.abs(values[values != 0])
    if not magnitudes.size:
        return _repeat_gray(np.full_like(values, 0.5))
    scaled = 0.5 + values / (2 * np.quantile(magnitudes, 1 - clip_fraction))
    return _repeat_gray(np.asarray(np.clip(scaled, 0, 1)))


def hide_axes(axes: Iterable[Axes]) -> None:
    """Hide the frames, ticks and labels of axes."""
    for one in axes:
        one.set_axis_off()

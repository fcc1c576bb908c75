"""Figure of images with the boxes of their objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from cnnkit._pixels import as_rgb
from cnnkit.figures.canvas import (
    PictureOptions,
    hide_axes,
    new_figure,
    plain_name,
    save_figure,
)

if TYPE_CHECKING:
    import numpy as np

    from cnnkit.evaluation import FileLocalization

# Colors of the boxes of an image, from the most probable class on; they differ for the color-blind.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7")
KNOWN = "white"
# Inches of an image, and characters of the lines above and below it.
SIDE, MAX_FILE, MAX_CLASS = 2.9, 34, 24


def draw_localizations(
    results: Sequence[FileLocalization],
    path: str | Path,
    *,
    known: Sequence[np.ndarray] | None = None,
    columns: int = 4,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw images with the boxes of their objects, and their classes below in the same color.

    Args:
        results: Results of `cnnkit.localize` that have an image, at least one.
        path: File to write: .png, .svg or .pdf.
        known: The right boxes of each image, (m, 4), which are drawn dashed in white; or None.
        columns: Images in a row.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    columns = min(columns, len(results))
    rows = -(-len(results) // columns)
    lines = max(len(one.objects) for one in results)
    below = 0.2 * lines + 0.15
    height = SIDE + 0.3 + below
    figure = new_figure(SIDE * columns, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    hide_axes(grid)
    for place, (axes, one) in enumerate(zip(grid, results, strict=False)):
        axes.set_anchor("N")
        if one.image is not None:
            axes.imshow(as_rgb(one.image))
        name = Path(one.name).name
        axes.set_title(name if len(name) <= MAX_FILE else f"...{name[-MAX_FILE:]}", fontsize=9)
        for box in [] if known is None else known[place]:
            _draw_box(axes, box, KNOWN, "--")
        for line, found in enumerate(one.objects):
            color = COLORS[line % len(COLORS)]
            _draw_box(axes, found.box, color, "-")
            axes.annotate(
                f"■ {plain_name(found.label)[:MAX_CLASS]} {found.probability:.2f}",
                (0, 0), (2, -6 - 13 * line), xycoords="axes fraction",
                textcoords="offset points", va="top", fontsize=9, color="black",
            )  # fmt: skip
            axes.annotate(
                "■", (0, 0), (2, -6 - 13 * line), xycoords="axes fraction",
                textcoords="offset points", va="top", fontsize=9, color=color,
            )  # fmt: skip
    figure.subplots_adjust(
        left=0.02, right=0.98, wspace=0.06, top=1 - 0.3 / (height * rows),
        bottom=below / (height * rows), hspace=(0.3 + below) / SIDE,
    )  # fmt: skip
    save_figure(figure, path, **picture)


def _draw_box(axes: object, box: Sequence[float], color: str, style: str) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    left, top, right, bottom = (float(side) for side in box)
    # The first pixel of an image goes from -0.5 to 0.5.
    frame = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False,
                      edgecolor=color, linewidth=2, linestyle=style)  # fmt: skip
    # A dark edge shows a box of any color on an image of any color.
    frame.set_path_effects([Stroke(linewidth=3.5, foreground="black"), Normal()])
    axes.add_patch(frame)  # type: ignore[attr-defined]

"""Figure of the kernels of the first convolution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from cnnkit._pixels import center_on_gray
from cnnkit.figures.canvas import (
    PictureOptions,
    add_caption,
    new_figure,
    save_figure,
    text_height,
    wrap_text,
)

if TYPE_CHECKING:
    from cnnkit.visualize import Filters

# Inches of a kernel.
SIDE = 0.68


def draw_filters(
    found: Filters, path: str | Path, *, columns: int = 16, **picture: Unpack[PictureOptions]
) -> None:
    """Draw kernels as a grid (Krizhevsky et al. 2012, Fig. 3).

    Gray is zero, and every kernel has a scale of its own. Dead kernels have a blue frame,
    dominating ones a red frame; a gap separates the towers.

    Args:
        found: Result of `cnnkit.visualize.filters`.
        path: File to write: .png, .svg or .pdf.
        columns: Number of kernels in a row.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    count, height, width = found.kernels.shape[:3]
    rows = -(-count // found.towers // columns)
    # A narrow row of the grid is the gap between two towers.
    ratios = ([1.0] * rows + [0.3]) * found.towers
    caption = (
        f"{found.layer}: {count} kernels of {height} x {width} · gray is 0, each on its own scale"
        f" · {int(found.dead.sum())} dead (blue), {int(found.dominating.sum())} dominating (red)"
    )
    if found.towers > 1:
        caption += f" · {found.towers} towers"
    sides = SIDE * columns, SIDE * 1.03 * sum(ratios)
    # A narrow figure is widened for its caption.
    inches = max(sides[0], 5.0)
    caption = wrap_text(caption, inches - 0.2)
    below = text_height(caption)
    figure = new_figure(inches, sides[1] + below)
    edge = (1 - 0.98 * sides[0] / inches) / 2
    grid = figure.add_gridspec(
        len(ratios), columns, height_ratios=ratios, hspace=0.08, wspace=0.08,
        left=edge, right=1 - edge, top=1 - 0.05 / (sides[1] + below),
        bottom=below / (sides[1] + below),
    )  # fmt: skip
    for tower, kernels in enumerate(np.array_split(np.arange(count), found.towers)):
        for place, index in enumerate(kernels):
            row, column = divmod(place, columns)
            axes = figure.add_subplot(grid[tower * (rows + 1) + row, column])
            axes.imshow(center_on_gray(found.kernels[index]))
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(bool(found.dead[index] or found.dominating[index]))
            for spine in axes.spines.values():
                spine.set(color="red" if found.dominating[index] else "blue", linewidth=2)
    add_caption(figure, caption)
    save_figure(figure, path, **picture)

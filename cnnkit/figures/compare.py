"""Methods side by side, and what they say of a network that has forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.attribution import CUT, shown_as
from cnnkit.figures.canvas import new_figure, save

if TYPE_CHECKING:
    from cnnkit.visualize import Comparison


def draw_comparison(
    image: np.ndarray, result: Comparison, path: str | Path, *, name: str | None = None
) -> None:
    """Draws a column for every method, and a row for the network and every stage, as a PNG.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: What `cnnkit.visualize.compare` returned for it.
        path: Where the picture goes.
        name: Name of the class; None is its number.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    rows, columns = 1 + len(result.stages), 1 + len(result.methods)
    height = 1.95 * rows + 0.75
    figure = new_figure(1.75 * columns, height)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    grid[0, 0].imshow(np.clip(image / 255, 0, 1))
    grid[0, 0].set_title(name or f"class {result.target}", fontsize=9)
    for axes, stage in zip(grid[1:, 0], result.stages, strict=True):
        text = f"weights random\nfrom the top\ndown to {stage}"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, transform=axes.transAxes)
    for row, maps in enumerate((result.maps, *result.randomized)):
        for column, values in enumerate(maps):
            axes = grid[row, column + 1]
            pixels, options = shown_as(values)
            axes.imshow(pixels, **options)
            if row == 0:
                axes.set_title(result.methods[column], fontsize=9)
            else:
                correlation = result.correlations[row - 1, column]
                said = "one value" if np.isnan(correlation) else f"ρ = {correlation:.2f}"
                axes.set_title(said, fontsize=9)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.3 / height, bottom=0.5 / height,
                           wspace=0.05, hspace=0.16)  # fmt: skip
    figure.text(
        0.5,
        0.08 / height,
        "ρ: Spearman's rank correlation of absolute values with the first row's;"
        " 1 where nothing changed\n"
        f"each picture on its own scale, its {CUT:.1%} largest values the same"
        " · rules: grey is 0",
        ha="center",
        fontsize=8,
    )
    save(figure, path, dpi=90)

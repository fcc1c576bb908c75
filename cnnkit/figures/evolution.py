"""Projections of units over the epochs of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import about_grey, new_figure, save
from cnnkit.figures.top9 import placed

if TYPE_CHECKING:
    from cnnkit.visualize import Evolution, Top

CUT = 0.01


def draw_evolution(layers: Mapping[str, Sequence[Evolution]], path: str | Path) -> None:
    """Draws a block for every layer, a row for every unit, a column for every epoch, as a PNG.

    Zeiler & Fergus 2013, Fig. 4. Grey is zero; every projection has a scale of its own, which the
    largest of its values leave: their colours are enhanced too.

    Args:
        layers: What `cnnkit.visualize.evolution` returned.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    rows = [row for block in layers.values() for row in block]
    epochs = rows[0].epochs
    figure = new_figure(0.95 * len(epochs) + 1.3, 0.95 * len(rows) + 0.9)
    grid = figure.subplots(len(rows), len(epochs), squeeze=False)
    for number, (line, row) in enumerate(zip(grid, rows, strict=True)):
        line[0].set_ylabel(f"{row.layer}\nunit {row.unit}", fontsize=8)
        for axes, epoch, top in zip(line, epochs, row.tops, strict=True):
            axes.set(xticks=[], yticks=[])
            if number == 0:
                axes.set_title(f"epoch {epoch}", fontsize=8)
            if not top.projections:
                axes.text(0.5, 0.5, "never fires", ha="center", va="center", fontsize=6)
                continue
            axes.imshow(about_grey(_seen(top), cut=CUT))
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(
        left=1.0 / figure.get_size_inches()[0], right=0.99, top=1 - 0.3 / height,
        bottom=0.5 / height, wspace=0.06, hspace=0.06,
    )  # fmt: skip
    rules = {top.projections[0].rule for row in rows for top in row.tops if top.projections}
    caption = (
        f"{', '.join(sorted(rules)) or 'nothing'} of the strongest activation over all images\n"
        f"grey is 0, each on its own scale, which {100 * CUT:g} % of its values leave"
    )
    figure.text(0.5, 0.08 / height, caption, ha="center", fontsize=7)
    save(figure, path, dpi=90)


def _seen(top: Top) -> np.ndarray:
    """Returns the projection of what the unit sees, at most of the whole image."""
    [result], shape = top.projections, top.patches[0].shape
    height, width = result.projection.shape[:2]
    if shape[0] > height or shape[1] > width:
        return result.projection
    return placed(result, shape)

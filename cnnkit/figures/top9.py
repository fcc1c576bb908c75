"""The strongest projections of units beside what they saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnkit.figures.canvas import about_grey, new_figure, save
from cnnkit.visualize import Projection, Top


def draw_top9(tops: Sequence[Top], path: str | Path, *, columns: int = 2) -> None:
    """Draws units' strongest projections beside what they saw, as a PNG.

    As Zeiler & Fergus 2013, Fig. 2: for each unit a square of projections, and to the right of it
    the same square of image patches. Grey is zero; every projection has a scale of its own, which
    the largest of its values leave, so that the others are seen.

    Args:
        tops: What `cnnkit.visualize.top9` returned for a layer.
        path: Where the picture goes.
        columns: Units in a row.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    columns = min(columns, len(tops))
    rows = -(-len(tops) // columns)
    figure = new_figure(4.6 * columns, 2.45 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, top in zip(grid.flat, tops, strict=False):
        title = f"{top.layer} unit {top.unit}"
        if not top.projections:
            axes.set_title(f"{title}: never fires", fontsize=8)
            continue
        axes.set_title(f"{title}: {top.projections[0].activation:.3g}", fontsize=8)
        pictures = [
            about_grey(_placed(result, patch.shape), cut=0.005)
            for result, patch in zip(top.projections, top.patches, strict=True)
        ]
        seen = [np.clip(patch / 255, 0, 1) for patch in top.patches]
        axes.imshow(np.concatenate([_square(pictures), _square(seen)], axis=1))
    caption = (
        "projections and patches, strongest first · the number is the strongest activation"
        " · grey is 0, each on its own scale, which 0.5 % of its values leave"
    )
    figure.subplots_adjust(left=0.01, right=0.99, top=0.96, bottom=0.06, wspace=0.05, hspace=0.15)
    figure.text(0.5, 0.01, caption, ha="center", fontsize=8)
    save(figure, path, dpi=70)


def _placed(result: Projection, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the projection of a receptive field, zero beyond the border of the image."""
    placed = np.zeros(shape, np.float32)
    box, wide = result.box, result.unclipped
    rows = slice(box.top - wide.top, box.bottom - wide.top)
    columns = slice(box.left - wide.left, box.right - wide.left)
    placed[rows, columns] = result.projection[box.slices]
    return placed


def _square(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns pictures of one size in a square, white between them and where one is missing."""
    side = int(np.ceil(np.sqrt(len(pictures))))
    height, width = (length + max(1, length // 20) for length in pictures[0].shape[:2])
    square = np.ones((side * height, side * width, 3), np.float32)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, side)
        rows = slice(row * height, row * height + picture.shape[0])
        square[rows, column * width : column * width + picture.shape[1]] = picture
    return square

"""The strongest projections of units beside what they saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import about_grey, new_figure, save

if TYPE_CHECKING:
    from cnnkit.visualize import Projection, Top

# The part of a projection's values, its largest, that leave its scale, so that others are seen.
CUT = 0.005
# From so many units on they are drawn smaller, more in a row.
MANY = 24


def draw_top9(
    tops: Iterable[Top], path: str | Path, *, units: int | None = None, columns: int | None = None
) -> None:
    """Draws units' strongest projections beside what they saw, as a PNG.

    As Zeiler & Fergus 2013, Fig. 2: for each unit a square of projections, and to the right of it
    the same square of image patches. Grey is zero; every projection has a scale of its own, which
    the largest of its values leave, so that the others are seen.

    Args:
        tops: What `cnnkit.visualize.top9` returned for a layer, or `cnnkit.visualize.tops`, of
            which one unit is in memory at a time.
        path: Where the picture goes.
        units: Number of units; None counts `tops`, which must then be a list.
        columns: Units in a row; None is 2, or 8 where there are many.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    units = len(tops) if units is None else units
    many = units > MANY
    columns = min(columns or (8 if many else 2), units)
    rows = -(-units // columns)
    # In inches, at 70 pixels to the inch.
    width, height = (2.3, 1.3) if many else (4.6, 2.45)
    tiles = [_tile(top, int(70 * width) if many else None) for top in tops]
    rules = sorted({tile.rule for tile in tiles if tile.rule})
    figure = new_figure(width * columns, height * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, tile in zip(grid.flat, tiles, strict=False):
        axes.set_title(tile.title, fontsize=5 if many else 8, pad=2)
        if tile.pixels is not None:
            axes.imshow(tile.pixels)
    caption = (
        f"{', '.join(rules) or 'nothing'} and patches, strongest first · the number is the"
        f" strongest activation\ngrey is 0, each on its own scale, which {100 * CUT:g} % of its"
        " values leave"
    )
    inches = height * rows + 0.3
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.2 / inches, bottom=0.38 / inches, wspace=0.05, hspace=0.15
    )
    figure.text(0.5, 0.04 / inches, caption, ha="center", fontsize=8)
    save(figure, path, dpi=70)


@dataclass(frozen=True)
class _Tile:
    """What is drawn of one unit: eight-bit pixels, so that all of a layer's fit into memory."""

    title: str
    pixels: np.ndarray | None
    rule: str | None


def _tile(top: Top, width: int | None) -> _Tile:
    title = f"{top.layer} unit {top.unit}"
    if not top.projections:
        return _Tile(f"{title}: never fires", None, None)
    pictures = [
        about_grey(placed(result, patch.shape), cut=CUT)
        for result, patch in zip(top.projections, top.patches, strict=True)
    ]
    seen = [np.clip(patch / 255, 0, 1) for patch in top.patches]
    pixels = np.concatenate([square(pictures), square(seen)], axis=1)
    if width is not None:
        pixels = _shrunk(pixels, pixels.shape[1] // width)
    strongest = top.projections[0]
    return _Tile(
        f"{title}: {strongest.activation:.3g}", np.uint8(np.rint(255 * pixels)), strongest.rule
    )


def _shrunk(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Returns the means of squares of `factor` pixels, what is left over at the ends cut off."""
    if factor < 2:
        return pixels
    rows, columns = (side // factor for side in pixels.shape[:2])
    cut = pixels[: rows * factor, : columns * factor]
    return cut.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))


def placed(result: Projection, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the projection of a receptive field, zero beyond the border of the image."""
    pixels = np.zeros(shape, np.float32)
    box, wide = result.box, result.unclipped
    rows = slice(box.top - wide.top, box.bottom - wide.top)
    columns = slice(box.left - wide.left, box.right - wide.left)
    pixels[rows, columns] = result.projection[box.slices]
    return pixels


def square(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns pictures of one size in a square, white between them and where one is missing."""
    side = int(np.ceil(np.sqrt(len(pictures))))
    height, width = (length + max(1, length // 20) for length in pictures[0].shape[:2])
    pixels = np.ones((side * height, side * width, 3), np.float32)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, side)
        rows = slice(row * height, row * height + picture.shape[0])
        pixels[rows, column * width : column * width + picture.shape[1]] = picture
    return pixels

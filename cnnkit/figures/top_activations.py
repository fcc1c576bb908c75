"""The strongest projections of units beside what they saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import center_on_gray, new_figure, save_figure

if TYPE_CHECKING:
    from cnnkit.visualize import Projection, UnitExamples
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnkit.visualize import FeatureEvolution, UnitExamples
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnkit.visualize import SecondLayerFilters


# The part of a projection's values, its largest, that leave its scale, so that others are seen.
CUT = 0.005
# From so many units on they are drawn smaller, more in a row.
MANY = 24


def draw_top9(
    tops: Iterable[UnitExamples],
    path: str | Path,
    *,
    units: int | None = None,
    columns: int | None = None,
) -> None:
    """Draws units' strongest projections beside what they saw, as a PNG.

    As Zeiler & Fergus 2013, Fig. 2: for each unit a square of projections, and to the right of it
    the same square of image patches. Gray is zero; every projection has a scale of its own, which
    the largest of its values leave, so that the others are seen.

    Args:
        tops: What `cnnkit.visualize.top9` returned for a layer, or `cnnkit.visualize.project_top`, of
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
        f" strongest activation\ngray is 0, each on its own scale, which {100 * CUT:g} % of its"
        " values leave"
    )
    inches = height * rows + 0.3
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.2 / inches, bottom=0.38 / inches, wspace=0.05, hspace=0.15
    )
    figure.text(0.5, 0.04 / inches, caption, ha="center", fontsize=8)
    save_figure(figure, path, dpi=70)


@dataclass(frozen=True)
class _Tile:
    """What is drawn of one unit: eight-bit pixels, so that all of a layer's fit into memory."""

    title: str
    pixels: np.ndarray | None
    rule: str | None


def _tile(top: UnitExamples, width: int | None) -> _Tile:
    title = f"{top.layer} unit {top.unit}"
    if not top.projections:
        return _Tile(f"{title}: never fires", None, None)
    pictures = [
        center_on_gray(paste_centered(result, patch.shape), cut=CUT)
        for result, patch in zip(top.projections, top.patches, strict=True)
    ]
    seen = [np.clip(patch / 255, 0, 1) for patch in top.patches]
    pixels = np.concatenate([square_grid(pictures), square_grid(seen)], axis=1)
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


def paste_centered(result: Projection, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the projection of a receptive field, zero beyond the border of the image."""
    pixels = np.zeros(shape, np.float32)
    box, wide = result.box, result.unclipped
    rows = slice(box.top - wide.top, box.bottom - wide.top)
    columns = slice(box.left - wide.left, box.right - wide.left)
    pixels[rows, columns] = result.projection[box.slices]
    return pixels


def square_grid(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns pictures of one size in a square, white between them and where one is missing."""
    side = int(np.ceil(np.sqrt(len(pictures))))
    height, width = (length + max(1, length // 20) for length in pictures[0].shape[:2])
    pixels = np.ones((side * height, side * width, 3), np.float32)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, side)
        rows = slice(row * height, row * height + picture.shape[0])
        pixels[rows, column * width : column * width + picture.shape[1]] = picture
    return pixels


CUT_EPOCHS = 0.01


def draw_feature_evolution(
    layers: Mapping[str, Sequence[FeatureEvolution]], path: str | Path
) -> None:
    """Draws a block for every layer, a row for every unit, a column for every epoch, as a PNG.

    Zeiler & Fergus 2013, Fig. 4. Gray is zero; every projection has a scale of its own, which the
    largest of its values leave: their colors are enhanced too.

    Args:
        layers: What `cnnkit.visualize.feature_evolution` returned.
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
        for axes, epoch, top in zip(line, epochs, row.examples, strict=True):
            axes.set(xticks=[], yticks=[])
            if number == 0:
                axes.set_title(f"epoch {epoch}", fontsize=8)
            if not top.projections:
                axes.text(0.5, 0.5, "never fires", ha="center", va="center", fontsize=6)
                continue
            axes.imshow(center_on_gray(_seen(top), cut=CUT_EPOCHS))
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(
        left=1.0 / figure.get_size_inches()[0], right=0.99, top=1 - 0.3 / height,
        bottom=0.5 / height, wspace=0.06, hspace=0.06,
    )  # fmt: skip
    rules = {top.projections[0].rule for row in rows for top in row.examples if top.projections}
    caption = (
        f"{', '.join(sorted(rules)) or 'nothing'} of the strongest activation over all images\n"
        f"gray is 0, each on its own scale, which {100 * CUT_EPOCHS:g} % of its values leave"
    )
    figure.text(0.5, 0.08 / height, caption, ha="center", fontsize=7)
    save_figure(figure, path, dpi=90)


def _seen(top: UnitExamples) -> np.ndarray:
    """Returns the projection of what the unit sees, at most of the whole image."""
    [result], shape = top.projections, top.patches[0].shape
    height, width = result.projection.shape[:2]
    if shape[0] > height or shape[1] > width:
        return result.projection
    return paste_centered(result, shape)


def draw_second_layer(networks: Sequence[SecondLayerFilters], path: str | Path) -> None:
    """Draws each network's second-layer projections beside what they saw, as a PNG.

    Zeiler & Fergus 2013, Fig. 6 (d) and (e), with the counts of (b) and (c). Gray is zero, every
    projection has a scale of its own, which the largest of its values leave.

    Args:
        networks: What `cnnkit.visualize.second_layer` returned for each.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    figure = new_figure(8.2, 4.5 * len(networks) + 0.3)
    grid = figure.subplots(len(networks), 2, squeeze=False)
    for (left, right), seen in zip(grid, networks, strict=True):
        kernels, tops = seen.filters, [top for top in seen.examples if top.projections]
        height, width = kernels.kernels.shape[1:3]
        left.set_title(
            f"{seen.model}, {kernels.layer}: {len(kernels.kernels)} kernels of {height} x {width},"
            f" {int(kernels.dead.sum())} dead, {len(seen.first_dead_units)} silent\n{seen.layer}:"
            f" {len(seen.second_dead_units)} of {seen.units} silent, one every {seen.receptive_field.stride[0]} pixels",
            fontsize=8,
        )
        right.set_title("what they saw", fontsize=8)
        for axes in (left, right):
            axes.set_axis_off()
        if tops:
            shape = tops[0].patches[0].shape
            left.imshow(
                square_grid(
                    [center_on_gray(paste_centered(t.projections[0], shape), cut=CUT) for t in tops]
                )
            )
            right.imshow(square_grid([np.clip(t.patches[0] / 255, 0, 1) for t in tops]))
    rules = sorted({t.projections[0].rule for n in networks for t in n.examples if t.projections})
    caption = (
        f"{', '.join(rules)} of units' strongest activation · gray is 0, each on its own scale,"
        f" which {100 * CUT:g} % of its values leave"
    )
    figure.subplots_adjust(left=0.01, right=0.99, top=0.94, bottom=0.05, wspace=0.03, hspace=0.14)
    figure.text(0.5, 0.012, caption, ha="center", fontsize=8)
    save_figure(figure, path, dpi=80)

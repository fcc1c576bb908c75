"""Figures of the images that activate units most: top nine, over epochs, second layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from cnnkit._pixels import as_rgb, center_on_gray
from cnnkit.figures.canvas import (
    DEFAULT_DPI,
    PictureOptions,
    check_picture,
    hide_axes,
    new_figure,
    save_figure,
)

if TYPE_CHECKING:
    from cnnkit.visualize import FeatureEvolution, Projection, SecondLayerFilters, UnitExamples

# Fraction of a projection's values, the largest ones, that become black or white, so that smaller
# ones are visible.
CLIP_FRACTION = 0.005
EVOLUTION_CLIP_FRACTION = 0.01
# With more units than this each is drawn smaller, and more of them in a row.
MANY_UNITS = 24


def draw_top9(
    tops: Iterable[UnitExamples],
    path: str | Path,
    *,
    units: int | None = None,
    columns: int | None = None,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw the strongest projections of units beside their image patches.

    As Zeiler & Fergus 2013, Fig. 2: for each unit a square of projections, and to the right of it
    the same square of image patches. Gray is zero. Every projection has a scale of its own, which
    clips its largest values, so that smaller ones are visible.

    Args:
        tops: Result of `cnnkit.visualize.top9` for a layer, or of `cnnkit.visualize.project_top`,
            which keeps one unit in memory at a time.
        path: File to write: .png, .svg or .pdf.
        units: Number of units; None counts `tops`, and keeps all of them in memory.
        columns: Number of units in a row; None is 2, or 8 for more than 24 units.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    # Before the units are projected, which may take minutes.
    check_picture(path, **picture)
    if units is None:
        tops = list(tops)
        units = len(tops)
    many = units > MANY_UNITS
    columns = min(columns or (8 if many else 2), units)
    rows = -(-units // columns)
    # In inches.
    width, height = (2.3, 1.3) if many else (4.6, 2.45)
    tiles = [_make_tile(top, int(DEFAULT_DPI * width) if many else None) for top in tops]
    rules = sorted({tile.rule for tile in tiles if tile.rule})
    figure = new_figure(width * columns, height * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    hide_axes(grid.flat)
    for axes, tile in zip(grid.flat, tiles, strict=False):
        axes.set_title(tile.title, fontsize=7 if many else 8, pad=2)
        if tile.pixels is not None:
            axes.imshow(tile.pixels)
    caption = (
        f"{', '.join(rules) or 'nothing'} and image patches, strongest first · the number is the"
        f" largest activation\n{_scale_text(CLIP_FRACTION)}"
    )
    inches = height * rows + 0.3
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.2 / inches, bottom=0.38 / inches, wspace=0.05, hspace=0.15
    )
    figure.text(0.5, 0.04 / inches, caption, ha="center", fontsize=8)
    save_figure(figure, path, **picture)


@dataclass(frozen=True)
class _Tile:
    """Title and pixels of one unit; uint8 pixels, so that all units of a layer fit into memory."""

    title: str
    pixels: np.ndarray | None
    rule: str | None


def _make_tile(top: UnitExamples, width: int | None) -> _Tile:
    title = f"{top.layer} unit {top.unit}"
    if not top.projections:
        return _Tile(f"{title}: never active", None, None)
    projections = [
        center_on_gray(paste_centered(result, patch.shape), clip_fraction=CLIP_FRACTION)
        for result, patch in zip(top.projections, top.patches, strict=True)
    ]
    patches = [as_rgb(patch) for patch in top.patches]
    pixels = np.concatenate([square_grid(projections), square_grid(patches)], axis=1)
    if width is not None:
        pixels = _downscale(pixels, pixels.shape[1] // width)
    strongest = top.projections[0]
    return _Tile(
        f"{title}: {strongest.activation:.3g}",
        np.rint(255 * pixels).astype(np.uint8),
        strongest.rule,
    )


def _downscale(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Return the means of squares of `factor` pixels; incomplete squares are cut off."""
    if factor < 2:
        return pixels
    rows, columns = (side // factor for side in pixels.shape[:2])
    complete = pixels[: rows * factor, : columns * factor]
    return np.asarray(complete.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3)))


def paste_centered(result: Projection, shape: tuple[int, ...]) -> np.ndarray:
    """Return the projection in its whole receptive field, zero beyond the border of the image."""
    pixels = np.zeros(shape, np.float32)
    box, field = result.box, result.unclipped
    rows = slice(box.top - field.top, box.bottom - field.top)
    columns = slice(box.left - field.left, box.right - field.left)
    pixels[rows, columns] = result.projection[box.slices]
    return pixels


def square_grid(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Arrange pictures of one size in a square, white between them and where one is missing."""
    side = int(np.ceil(np.sqrt(len(pictures))))
    height, width = (length + max(1, length // 20) for length in pictures[0].shape[:2])
    pixels = np.ones((side * height, side * width, 3), np.float32)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, side)
        rows = slice(row * height, row * height + picture.shape[0])
        pixels[rows, column * width : column * width + picture.shape[1]] = picture
    return pixels


def draw_feature_evolution(
    layers: Mapping[str, Sequence[FeatureEvolution]],
    path: str | Path,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw a block for every layer, a row for every unit, a column for every epoch.

    Zeiler & Fergus 2013, Fig. 4. Gray is zero. Every projection has a scale of its own, which clips
    its largest values; the paper enhances the colors too.

    Args:
        layers: Result of `cnnkit.visualize.feature_evolution`.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
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
                axes.text(0.5, 0.5, "never active", ha="center", va="center", fontsize=7)
                continue
            axes.imshow(
                center_on_gray(_field_projection(top), clip_fraction=EVOLUTION_CLIP_FRACTION)
            )
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(
        left=1.0 / figure.get_size_inches()[0], right=0.99, top=1 - 0.3 / height,
        bottom=0.5 / height, wspace=0.06, hspace=0.06,
    )  # fmt: skip
    rules = {top.projections[0].rule for row in rows for top in row.examples if top.projections}
    caption = (
        f"{', '.join(sorted(rules)) or 'nothing'} of the strongest activation over all images\n"
        f"{_scale_text(EVOLUTION_CLIP_FRACTION)}"
    )
    figure.text(0.5, 0.08 / height, caption, ha="center", fontsize=7)
    save_figure(figure, path, **picture)


def _field_projection(top: UnitExamples) -> np.ndarray:
    """Return the projection in the receptive field, or in the image where that is smaller."""
    [result], shape = top.projections, top.patches[0].shape
    height, width = result.projection.shape[:2]
    if shape[0] > height or shape[1] > width:
        return result.projection
    return paste_centered(result, shape)


def draw_second_layer(
    networks: Sequence[SecondLayerFilters], path: str | Path, **picture: Unpack[PictureOptions]
) -> None:
    """Draw each network's second-layer projections beside their image patches.

    Zeiler & Fergus 2013, Fig. 6 (d) and (e), with the counts of (b) and (c). Gray is zero. Every
    projection has a scale of its own, which clips its largest values.

    Args:
        networks: Result of `cnnkit.visualize.second_layer_filters` for each network.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    figure = new_figure(8.2, 4.5 * len(networks) + 0.3)
    grid = figure.subplots(len(networks), 2, squeeze=False)
    for (left, right), network in zip(grid, networks, strict=True):
        tops = [top for top in network.examples if top.projections]
        left.set_title(_second_layer_title(network), fontsize=8)
        right.set_title("image patches", fontsize=8)
        hide_axes((left, right))
        if tops:
            shape = tops[0].patches[0].shape
            projections = (paste_centered(top.projections[0], shape) for top in tops)
            left.imshow(
                square_grid(
                    [center_on_gray(one, clip_fraction=CLIP_FRACTION) for one in projections]
                )
            )
            right.imshow(square_grid([as_rgb(t.patches[0]) for t in tops]))
    rules = sorted({t.projections[0].rule for n in networks for t in n.examples if t.projections})
    caption = f"{', '.join(rules)} of units' strongest activation · {_scale_text(CLIP_FRACTION)}"
    figure.subplots_adjust(left=0.01, right=0.99, top=0.94, bottom=0.05, wspace=0.03, hspace=0.14)
    figure.text(0.5, 0.012, caption, ha="center", fontsize=8)
    save_figure(figure, path, **picture)


def _second_layer_title(network: SecondLayerFilters) -> str:
    kernels = network.filters
    height, width = kernels.kernels.shape[1:3]
    field = network.receptive_field
    return (
        f"{network.model}, {kernels.layer}: {len(kernels.kernels)} kernels of {height} x {width},"
        f" {int(kernels.dead.sum())} dead, {len(network.first_dead_units)} silent\n"
        f"{network.layer}: {len(network.second_dead_units)} of {network.units} silent"
        + (f", one every {field.stride[0]} pixels" if field else "")
    )


def _scale_text(clip_fraction: float) -> str:
    return f"gray is 0, each on its own scale, {100 * clip_fraction:g} % of its values clipped"

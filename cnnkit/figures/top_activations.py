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
    TEXT,
    TICKS,
    TITLE,
    PictureOptions,
    add_caption,
    check_picture,
    hide_axes,
    new_figure,
    plain_name,
    save_figure,
    text_height,
    tile_pictures,
    wrap_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnkit.visualize import FeatureEvolution, Projection, SecondLayerFilters, UnitExamples

# Fraction of a projection's values, the largest ones, that become black or white, so that smaller
# ones are visible.
CLIP_FRACTION = 0.02
EVOLUTION_CLIP_FRACTION = 0.02
# Inches of a projection over epochs.
SIDE = 1.4
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
    clips its largest values, so that smaller ones are visible. White lies beyond the image; where
    the receptive field is larger than the image, the tiles show the image.

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
    width, height = (2.6, 1.5) if many else (6.6, 3.6)
    pixels = int((picture.get("dpi") or DEFAULT_DPI) * width)
    tiles = [_make_tile(top, pixels if many else None) for top in tops]
    rules = sorted({tile.rule for tile in tiles if tile.rule})
    caption = wrap_text(
        f"{', '.join(rules) or 'nothing'} (left) and image patches, strongest first · the number is"
        f" the largest activation · {_scale_text(CLIP_FRACTION)}, white beyond the image",
        width * columns - 0.3,
    )
    below = text_height(caption)
    inches = height * rows + below
    figure = new_figure(width * columns, inches)
    grid = figure.subplots(rows, columns, squeeze=False)
    hide_axes(grid.flat)
    for axes, tile in zip(grid.flat, tiles, strict=False):
        axes.set_title(tile.title, fontsize=TICKS if many else TITLE, pad=3)
        if tile.pixels is not None:
            axes.imshow(tile.pixels)
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.3 / inches, bottom=below / inches,
        wspace=0.04, hspace=0.2 if many else 0.1,
    )  # fmt: skip
    add_caption(figure, caption)
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
    shown = [_field_tiles(*one) for one in zip(top.projections, top.patches, strict=True)]
    side = int(np.ceil(np.sqrt(len(shown))))
    left, right = (tile_pictures(pictures, side) for pictures in zip(*shown, strict=True))
    gap = np.ones((len(left), max(2, left.shape[1] // 30), 3), np.float32)
    pixels = np.concatenate([left, gap, right], axis=1)
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


def _field_tiles(
    result: Projection, patch: np.ndarray, clip_fraction: float = CLIP_FRACTION
) -> tuple[np.ndarray, np.ndarray]:
    """Return a projection and its image patch as far as the receptive field, in 0..1.

    A field that is higher or wider than the image is shown as far as the image. White lies beyond
    the image.

    Args:
        result: The projection.
        patch: The pixels of the receptive field, of the size of `result.unclipped`.
        clip_fraction: Fraction of the projection's values that become black or white.
    """
    sides, field = result.projection.shape[:2], result.unclipped
    spans = (field.top, field.bottom), (field.left, field.right)
    is_whole = any(last - first > side for (first, last), side in zip(spans, sides, strict=True))
    starts = (0, 0) if is_whole else (field.top, field.left)
    shape = sides if is_whole else patch.shape[:2]
    inside = [
        (max(first, 0), min(last, side)) for (first, last), side in zip(spans, sides, strict=True)
    ]

    def part(origin: Sequence[int]) -> tuple[slice, ...]:
        """Return the part of the field within the image, by its distance from a pixel."""
        return tuple(
            slice(first - zero, last - zero)
            for (first, last), zero in zip(inside, origin, strict=True)
        )

    tiles = np.ones((2, *shape, 3), np.float32)
    signed = center_on_gray(result.projection, clip_fraction=clip_fraction)
    tiles[0][part(starts)] = signed[part((0, 0))]
    tiles[1][part(starts)] = as_rgb(patch)[part((field.top, field.left))]
    return tiles[0], tiles[1]


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
    width = SIDE * len(epochs) + 1.2
    rules = {top.projections[0].rule for row in rows for top in row.examples if top.projections}
    caption = wrap_text(
        f"{', '.join(sorted(rules)) or 'nothing'} of the strongest activation over all images ·"
        f" {_scale_text(EVOLUTION_CLIP_FRACTION)}, white beyond the image",
        width - 0.2,
    )
    below = text_height(caption)
    height = SIDE * len(rows) + 0.4 + below
    figure = new_figure(width, height)
    grid = figure.subplots(len(rows), len(epochs), squeeze=False)
    for number, (line, row) in enumerate(zip(grid, rows, strict=True)):
        line[0].set_ylabel(f"{row.layer}\nunit {row.unit}", fontsize=TEXT)
        for axes, epoch, top in zip(line, epochs, row.examples, strict=True):
            axes.set(xticks=[], yticks=[])
            if number == 0:
                axes.set_title(f"epoch {epoch}", fontsize=TITLE)
            if not top.projections:
                axes.text(0.5, 0.5, "never\nactive", ha="center", va="center", fontsize=TEXT)
                continue
            [result], [patch] = top.projections, top.patches
            axes.imshow(_field_tiles(result, patch, EVOLUTION_CLIP_FRACTION)[0])
    figure.subplots_adjust(
        left=0.9 / width, right=0.99, top=1 - 0.35 / height, bottom=below / height,
        wspace=0.05, hspace=0.05,
    )  # fmt: skip
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


def draw_second_layer(
    networks: Sequence[SecondLayerFilters],
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw each network's second-layer projections beside their image patches.

    Zeiler & Fergus 2013, Fig. 6 (d) and (e), with the counts of (b) and (c). Gray is zero. Every
    projection has a scale of its own, which clips its largest values. The number on it is that of
    its unit.

    Args:
        networks: Result of `cnnkit.visualize.second_layer_filters` for each network.
        path: File to write: .png, .svg or .pdf.
        names: Name of each network; None takes those of the models.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    names = [one.model for one in networks] if names is None else names
    rules = sorted({t.projections[0].rule for n in networks for t in n.examples if t.projections})
    caption = wrap_text(
        f"{', '.join(rules)} of units' strongest activation · {_scale_text(CLIP_FRACTION)}", 10.8
    )
    below = text_height(caption)
    height = 6.1 * len(networks) + below
    figure = new_figure(11.2, height)
    grid = figure.subplots(len(networks), 2, squeeze=False)
    for (left, right), network, name in zip(grid, networks, names, strict=True):
        left.set_title(_second_layer_title(network, name), fontsize=TEXT)
        right.set_title("image patches", fontsize=TITLE)
        hide_axes((left, right))
        tops = [top for top in network.examples if top.projections]
        if not tops:
            left.text(0.5, 0.5, "no unit is active", ha="center", fontsize=TEXT)
            continue
        shown = [_field_tiles(top.projections[0], top.patches[0]) for top in tops]
        side = int(np.ceil(np.sqrt(len(shown))))
        for axes, pictures in zip((left, right), zip(*shown, strict=True), strict=True):
            pixels = tile_pictures(pictures, side)
            axes.imshow(pixels)
            _write_units(axes, [top.unit for top in tops], side, pixels.shape[1])
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.6 / height, bottom=below / height, wspace=0.03, hspace=0.14
    )
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


def _write_units(axes: Axes, units: Sequence[int], side: int, width: int) -> None:
    """Write the number of each unit into the lower left corner of its tile."""
    step = width / side
    for number, unit in enumerate(units):
        row, column = divmod(number, side)
        axes.text(
            column * step + 0.04 * step, (row + 0.9) * step, str(unit), fontsize=TICKS, va="bottom",
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
        )  # fmt: skip


def _second_layer_title(network: SecondLayerFilters, name: str) -> str:
    kernels = network.filters
    height, width = kernels.kernels.shape[1:3]
    field = network.receptive_field
    return wrap_text(
        f"{plain_name(name)}\n"
        f"{kernels.layer}: {len(kernels.kernels)} kernels of {height} x {width},"
        f" {int(kernels.dead.sum())} dead, {len(network.first_dead_units)} silent\n"
        f"{network.layer}: {len(network.second_dead_units)} of {network.units} silent"
        + (f", one every {field.stride[0]} pixels" if field else ""),
        5.4,
    )


def _scale_text(clip_fraction: float) -> str:
    return f"gray is 0, each on its own scale, {100 * clip_fraction:g} % of its values clipped"

"""Figures of attribution maps, of methods compared, and of synthesized images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from cnnkit._pixels import CLIP_FRACTION, as_rgb, brightest_value, center_on_gray, to_unit_range
from cnnkit.figures.canvas import (
    TEXT,
    TICKS,
    TITLE,
    PictureOptions,
    add_caption,
    hide_axes,
    new_figure,
    plain_name,
    save_figure,
    text_height,
    wrap_text,
)

if TYPE_CHECKING:
    from cnnkit.visualize import Attribution, AttributionComparison, SynthesizedImage

# Colors of maps, from 0 to the largest values.
COLORS = "inferno"
# How much of the image the brightest color hides.
OPACITY = 0.8


def draw_attribution(
    image: np.ndarray,
    result: Attribution,
    path: str | Path,
    *,
    name: str | None = None,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw an image, its attribution map, and the map over the image.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: Result of an attribution method, such as `cnnkit.visualize.gradcam`, for the image.
        path: File to write: .png, .svg or .pdf.
        name: Name of the class; None uses its number.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    figure = new_figure(12, 4.9)
    original, alone, over = figure.subplots(1, 3)
    pixels = as_rgb(image)
    strength = to_unit_range(result.map)
    original.imshow(pixels)
    original.set_title("image", fontsize=TITLE)
    options = {"cmap": COLORS, "vmin": 0, "vmax": 1}
    colored = alone.imshow(strength, **options)
    title = f"{result.method}, {plain_name(name or f'class {result.target}')}"
    alone.set_title(wrap_text(title, 3.5, TITLE), fontsize=TITLE)
    over.imshow(heat_over(image, result.map))
    over.set_title("over the image", fontsize=TITLE)
    hide_axes((original, alone, over))
    grid_text = ""
    if result.grid is not None:
        grid_text = (
            f"maps of {result.layer}, {' x '.join(map(str, result.grid.shape))} positions,"
            " bicubic between them · "
        )
    caption = wrap_text(
        f"logit {result.score:.3g} · {grid_text}the {CLIP_FRACTION:.1%} largest values share the"
        " brightest color",
        11.6,
    )
    below = text_height(caption) / 4.9
    figure.subplots_adjust(left=0.01, right=0.93, top=0.9, bottom=below, wspace=0.03)
    place = alone.get_position()
    bar = figure.colorbar(
        colored, cax=figure.add_axes((0.94, place.y0, 0.012, place.height)), ticks=[0, 1]
    )
    bar.ax.set_yticklabels(["0", f"{brightest_value(result.map):.2g}"], fontsize=TICKS)
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


def draw_synthesized(
    results: Sequence[SynthesizedImage], path: str | Path, **picture: Unpack[PictureOptions]
) -> None:
    """Draw images that were optimized to activate units, side by side.

    Args:
        results: Results of `cnnkit.visualize.activation_maximization`, at least one.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    columns = min(4, len(results))
    rows = -(-len(results) // columns)
    width = 3.3 * columns
    caption = wrap_text(
        "optimized from noise; activation for the noise → for the image", width - 0.2
    )
    below = text_height(caption)
    height = 3.85 * rows + below
    figure = new_figure(width, height)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    hide_axes(grid)
    for axes, one in zip(grid, results, strict=False):
        axes.imshow(as_rgb(one.image))
        axes.set_title(
            f"{one.layer} unit {one.unit}\n{one.start:.3g} → {one.activation:.3g}"
            + ("" if one.fires else ": does not fire"),
            fontsize=TITLE,
        )
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.55 / height, bottom=below / height, wspace=0.04, hspace=0.2
    )
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


def heat_over(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Color an image, in gray, by a map: yellow is the largest value, and zero has no color.

    Args:
        image: (h, w, c) in 0..255.
        values: (h, w), 0 or more.

    Returns:
        (h, w, 3) in 0..1.
    """
    import matplotlib

    strength = to_unit_range(values)
    colored = matplotlib.colormaps[COLORS](strength)[..., :3]
    share = OPACITY * strength[..., None]
    gray = as_rgb(image).mean(axis=-1, keepdims=True)
    return np.asarray((1 - share) * gray + share * colored)


def explanation_pixels(image: np.ndarray, explanation: Attribution) -> np.ndarray:
    """Return an explanation as an image: the signed pixels of a backward rule, or a map over it.

    Args:
        image: (h, w, c) in 0..255.
        explanation: Its explanation, of `cnnkit.visualize.explain_class`.

    Returns:
        (h, w, 3) in 0..1.
    """
    if is_signed(explanation) and explanation.gradient is not None:
        return attribution_pixels(explanation.gradient)[0]
    return heat_over(image, explanation.map)


def is_signed(explanation: Attribution) -> bool:
    """Return True if an explanation has signed pixels, of which gray ones are 0."""
    # Imported here: the other figures need no TensorFlow.
    from cnnkit.visualize.attribution.explain_class import BY_RULE

    return explanation.method in BY_RULE


def attribution_pixels(values: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a map (h, w) or signed pixels (h, w, 3) in 0..1, and the options of `imshow`."""
    if values.ndim == 3:
        return center_on_gray(values, clip_fraction=CLIP_FRACTION), {}
    return to_unit_range(values), {"cmap": COLORS, "vmin": 0, "vmax": 1}


def draw_comparison(
    image: np.ndarray,
    result: AttributionComparison,
    path: str | Path,
    *,
    name: str | None = None,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw a column for each method, and a row for the network and for each randomized stage.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: Result of `cnnkit.visualize.compare_attributions` for the image.
        path: File to write: .png, .svg or .pdf.
        name: Name of the class; None uses its number.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    rows, columns = 1 + len(result.stages), 1 + len(result.methods)
    caption = wrap_text(
        "ρ: Spearman's rank correlation of absolute values with the first row's; 1 where nothing"
        f" changed · each picture on its own scale, its {CLIP_FRACTION:.1%} largest values the same"
        " · rules: gray is 0",
        1.95 * columns - 0.2,
    )
    below = text_height(caption)
    height = 2.25 * rows + below
    figure = new_figure(1.95 * columns, height)
    grid = figure.subplots(rows, columns, squeeze=False)
    hide_axes(grid.flat)
    grid[0, 0].imshow(as_rgb(image))
    title = plain_name(name or f"class {result.target}")
    grid[0, 0].set_title(wrap_text(title, 1.8, TEXT), fontsize=TEXT)
    for axes, stage in zip(grid[1:, 0], result.stages, strict=True):
        text = f"weights random\nfrom the top\ndown to {stage}"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=TEXT, transform=axes.transAxes)
    for row, maps in enumerate((result.maps, *result.randomized_maps)):
        for column, values in enumerate(maps):
            axes = grid[row, column + 1]
            pixels, options = attribution_pixels(values)
            axes.imshow(pixels, **options)
            if row == 0:
                method = result.methods[column]
                of_maps = "cam" in method and result.layer
                title = f"{method} {result.layer}" if of_maps else method
                axes.set_title(wrap_text(title, 1.8, TEXT), fontsize=TEXT)
            else:
                correlation = result.correlations[row - 1, column]
                text = "one value" if np.isnan(correlation) else f"ρ = {correlation:.2f}"
                axes.set_title(text, fontsize=TEXT)
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.5 / height, bottom=below / height, wspace=0.05, hspace=0.18
    )
    add_caption(figure, caption)
    save_figure(figure, path, **picture)

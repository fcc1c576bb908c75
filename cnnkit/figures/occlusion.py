"""Figure of the outputs of a network while parts of an image are covered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from cnnkit._pixels import as_rgb, center_on_gray, distinguishing_digits
from cnnkit.figures.canvas import (
    TEXT,
    TICKS,
    PictureOptions,
    add_caption,
    new_figure,
    save_figure,
    text_height,
    wrap_text,
)
from cnnkit.figures.evaluation import shorten_end

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnnkit.visualize import OcclusionMaps, Projection

# Number of colors of the label map; rarer labels share the last one.
COLORS = 10
# Fraction of a projection's values that become black or white.
CLIP_FRACTION = 0.005
# Inches of the figure, and of a panel with its colorbar.
WIDTH, HEIGHT, PANEL = 15.0, 4.35, 2.5
# Width of a colorbar with its numbers as a part of that of a panel.
BAR = 0.36
# Characters of the name of a class.
MAX_CLASS = 20
# How much of the image the colors of a map hide.
OPACITY = 0.75


def draw_occlusion(
    image: np.ndarray,
    result: OcclusionMaps,
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    others: Sequence[Projection] = (),
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw the five columns of Zeiler & Fergus 2013, Fig. 7.

    The image with the square where the probability is lowest; the activity of the strongest map;
    its projection, with a black square where covering removes most of the map's activity; the
    probability of the class; the most probable class. Values are drawn over the gray image, at the
    centers of the squares; the colors go from the smallest to the largest value of each map.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: Result of `cnnkit.visualize.occlusion` for the image.
        path: File to write: .png, .svg or .pdf.
        names: Names of the classes; None uses their numbers.
        others: Projections of the same unit from other images, drawn as far as its receptive field
            beside the image's own projection, which then has a black frame.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """

    def name(label: int) -> str:
        return names[label] if names else f"class {label}"

    figure = new_figure(WIDTH, HEIGHT)
    caption = _caption(result, others)
    grid = figure.add_gridspec(
        1, 7, width_ratios=(1, 1, BAR, 1, 1, BAR, 1), wspace=0.06, left=0.005, right=0.995,
        top=1 - 0.55 / HEIGHT, bottom=(text_height(caption) + 0.65) / HEIGHT,
    )  # fmt: skip
    panels = [figure.add_subplot(grid[0, column]) for column in (0, 1, 3, 4, 6)]
    covered, activity, projected, probability, labels = panels
    row, column = np.unravel_index(result.probability.argmin(), result.probability.shape)
    pixels = np.array(image, np.float32)
    top, left = result.rows[row], result.columns[column]
    pixels[top : top + result.square[0], left : left + result.square[1]] = result.fill
    covered.imshow(as_rgb(pixels))
    _write_title(covered, "(a) covered where the class is least probable")
    _draw_grid(activity, image, result, result.activity, figure)
    whole = result.clean_activity
    _write_title(
        activity,
        f"(b) sum of {result.layer} unit {result.unit}\n"
        f"whole image: {whole:{',.0f' if whole >= 1000 else '.3g'}}",
    )
    _draw_projections(projected, result, others)
    _draw_grid(probability, image, result, result.probability, figure)
    _write_title(
        probability,
        f"(d) P({shorten_end(name(result.target), MAX_CLASS)})\n"
        f"whole image: {value_texts([result.clean_probability], result.probability)[0]}",
    )
    _draw_labels(labels, image, result, name)
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.set_xlim(-0.5, image.shape[1] - 0.5)
        axes.set_ylim(image.shape[0] - 0.5, -0.5)
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


def _caption(result: OcclusionMaps, others: Sequence[Projection]) -> str:
    height, width = result.square
    return wrap_text(
        f"a square of {height} x {width} pixels at {result.probability.size} positions, each drawn"
        " at its center over the image; colors from the smallest to the largest value ·"
        f" projections: gray is 0, {CLIP_FRACTION:.1%} of the values clipped"
        + ("" if others else " · black square: where the unit is least active"),
        WIDTH - 0.4,
    )


def value_texts(values: Sequence[float], among: np.ndarray) -> list[str]:
    """Return numbers with as many digits as tell them from other values of a map.

    Args:
        values: The numbers.
        among: The values of the map.

    Example:
        >>> value_texts([0.5, 0.99994], np.array([0.9998, 1.0]))
        ['0.50000', '0.99994']
        >>> value_texts([950], np.array([9, 1000]))
        ['950']
    """
    digits = distinguishing_digits(among)
    return [f"{value:,.{digits}f}" for value in values]


def _write_title(axes: Axes, text: str) -> None:
    axes.set_title(wrap_text(text, PANEL, TEXT), fontsize=TEXT)


def _draw_projections(axes: Axes, result: OcclusionMaps, others: Sequence[Projection]) -> None:
    # Imported here, so that `new_figure` raises the error if matplotlib is missing.
    from matplotlib.patches import Rectangle

    own = result.projection
    title = f"(c) {result.layer} unit {result.unit}, projected"
    if own is None:
        axes.text(0.5, 0.5, "no projection", ha="center", fontsize=TEXT, transform=axes.transAxes)
    elif not others:
        axes.imshow(center_on_gray(own.projection, clip_fraction=CLIP_FRACTION))
        least = np.unravel_index(result.activity.argmin(), result.activity.shape)
        corner = result.columns[least[1]] - 0.5, result.rows[least[0]] - 0.5
        height, width = result.square
        axes.add_patch(Rectangle(corner, width, height, fill=False, color="black", linewidth=2))
    else:
        title += f"\nhere (framed), in {len(others)} others"
        side = math.ceil(math.sqrt(1 + len(others)))
        for n, one in enumerate((own, *others)):
            row, column = divmod(n, side)
            # Left, bottom, width and height, with a small gap between the insets.
            bounds = (column / side, 1 - (row + 1) / side, 0.96 / side, 0.96 / side)
            inset = axes.inset_axes(bounds, xticks=[], yticks=[])
            inset.imshow(
                center_on_gray(one.projection[one.box.slices], clip_fraction=CLIP_FRACTION)
            )
            inset.spines[:].set(color="black", linewidth=2.5 if one is own else 0.3)
            if not one.projection.any():
                inset.text(
                    0.5, 0.5, "silent", ha="center", fontsize=TICKS, transform=inset.transAxes
                )
        axes.set_frame_on(False)
    _write_title(axes, title)


def _draw_grid(
    axes: Axes, image: np.ndarray, result: OcclusionMaps, values: np.ndarray, figure: Figure
) -> None:
    """Draw a map over the gray image, with the colors from its smallest to its largest value."""
    _draw_gray(axes, image)
    low, high = float(values.min()), float(values.max())
    # A map of one value still has a color.
    colored = axes.imshow(
        values,
        extent=_extent(result),
        alpha=OPACITY,
        vmin=low,
        vmax=high if high > low else low + 1,
    )
    # Beside the axes, so that all five columns keep one size.
    bar = figure.colorbar(colored, cax=axes.inset_axes((1.03, 0, 0.06, 1)))
    ticks = np.linspace(low, high, 4).tolist() if high > low else [low]
    bar.set_ticks(ticks, labels=value_texts(ticks, values), fontsize=TICKS)


def _draw_gray(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(as_rgb(image).mean(axis=-1), cmap="gray", vmin=0, vmax=1)


def _extent(result: OcclusionMaps) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of the grid on the image; cells surround the centers."""
    sides = []
    for first, size in zip((result.rows, result.columns), result.square, strict=True):
        step = first[1] - first[0] if len(first) > 1 else size
        center = size / 2 - 0.5
        sides.append((first[0] + center - step / 2, first[-1] + center + step / 2))
    (top, bottom), (left, right) = sides
    return left, right, bottom, top


def _draw_labels(
    axes: Axes, image: np.ndarray, result: OcclusionMaps, name: Callable[[int], str]
) -> None:
    labels, counts = np.unique(result.label, return_counts=True)
    by_count = labels[np.argsort(-counts, kind="stable")]
    colors = np.minimum(
        np.vectorize({label: i for i, label in enumerate(by_count)}.get)(result.label), COLORS - 1
    )
    _draw_gray(axes, image)
    axes.imshow(
        colors, extent=_extent(result), cmap="tab10", vmin=0, vmax=COLORS - 1, alpha=OPACITY
    )
    _write_title(axes, "(e) most probable class")
    for i, label in enumerate(by_count[:3]):
        share = f"{counts[labels == label][0] / counts.sum():.0%}"
        text = f"{shorten_end(name(int(label)), MAX_CLASS)}, {share}"
        axes.plot([], [], "s", color=f"C{i}", label=text, markersize=9)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0.0), fontsize=TEXT, frameon=False,
        handletextpad=0.1, labelspacing=0.2,
    )  # fmt: skip

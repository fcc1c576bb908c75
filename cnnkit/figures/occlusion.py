"""Figure of the outputs of a network while parts of an image are covered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from cnnkit._pixels import as_rgb, center_on_gray
from cnnkit.figures.canvas import PictureOptions, new_figure, plain_name, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnnkit.visualize import OcclusionMaps, Projection

# Number of colors of the label map; rarer labels share the last one.
COLORS = 10
# Fraction of a projection's values that become black or white.
CLIP_FRACTION = 0.005


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
    probability of the class; the most probable class. Values are drawn at the centers of the
    squares.

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

    figure = new_figure(13, 3.6)
    covered, activity, projected, probability, labels = figure.subplots(1, 5)
    row, column = np.unravel_index(result.probability.argmin(), result.probability.shape)
    pixels = np.array(image, np.float32)
    top, left = result.rows[row], result.columns[column]
    pixels[top : top + result.square[0], left : left + result.square[1]] = result.fill
    covered.imshow(as_rgb(pixels))
    covered.set_title("covered where the probability\nof the class is lowest", fontsize=9)
    _draw_grid(activity, result, result.activity, figure)
    whole = result.clean_activity
    activity.set_title(
        f"sum of {result.layer} unit {result.unit}\n"
        f"(whole image: {whole:{',.0f' if whole >= 1000 else '.3g'}})",
        fontsize=9,
    )
    _draw_projections(projected, result, others)
    _draw_grid(probability, result, result.probability, figure, vmin=0, vmax=1)
    probability.set_title(
        f"probability of class {names[result.target] if names else result.target}\n"
        f"(whole image: {result.clean_probability:.3g})",
        fontsize=9,
    )
    _draw_labels(labels, result, name)
    for axes in (covered, activity, projected, probability, labels):
        axes.set(xticks=[], yticks=[])
        axes.set_xlim(-0.5, image.shape[1] - 0.5)
        axes.set_ylim(image.shape[0] - 0.5, -0.5)
    height, width = result.square
    figure.subplots_adjust(left=0.01, right=0.99, top=0.84, bottom=0.26, wspace=0.34)
    caption = (
        f"a square of {height} x {width} pixels, {result.probability.size} positions, each drawn at"
        " its center\n"
        f"projections: gray is 0, and {CLIP_FRACTION:.1%} of the values are clipped"
        + ("" if others else " · black square: where the activity is lowest")
    )
    figure.text(0.5, 0.02, caption, ha="center", fontsize=9)
    save_figure(figure, path, **picture)


def _draw_projections(axes: Axes, result: OcclusionMaps, others: Sequence[Projection]) -> None:
    # Imported here, so that `new_figure` raises the error if matplotlib is missing.
    from matplotlib.patches import Rectangle

    own = result.projection
    title = "the unit's strongest position,\nprojected to the pixels"
    if own is None:
        axes.text(0.5, 0.5, "no projection", ha="center", transform=axes.transAxes)
    elif not others:
        axes.imshow(center_on_gray(own.projection, clip_fraction=CLIP_FRACTION))
        least = np.unravel_index(result.activity.argmin(), result.activity.shape)
        corner = result.columns[least[1]] - 0.5, result.rows[least[0]] - 0.5
        height, width = result.square
        axes.add_patch(Rectangle(corner, width, height, fill=False, color="black"))
    else:
        title += ", and\nfrom other images"
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
                inset.text(0.5, 0.5, "silent", ha="center", fontsize=7, transform=inset.transAxes)
        axes.set_frame_on(False)
    axes.set_title(title, fontsize=9)


def _draw_grid(
    axes: Axes, result: OcclusionMaps, values: np.ndarray, figure: Figure, **options: Any
) -> None:
    colored = axes.imshow(values, extent=_extent(result), **options)
    # Beside the axes, so that all five columns keep one size.
    bar = figure.colorbar(colored, cax=axes.inset_axes((1.03, 0, 0.05, 1)))
    bar.ax.tick_params(labelsize=8)


def _extent(result: OcclusionMaps) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of the grid on the image; cells surround the centers."""
    sides = []
    for first, size in zip((result.rows, result.columns), result.square, strict=True):
        step = first[1] - first[0] if len(first) > 1 else size
        center = size / 2 - 0.5
        sides.append((first[0] + center - step / 2, first[-1] + center + step / 2))
    (top, bottom), (left, right) = sides
    return left, right, bottom, top


def _draw_labels(axes: Axes, result: OcclusionMaps, name: Callable[[int], str]) -> None:
    labels, counts = np.unique(result.label, return_counts=True)
    by_count = labels[np.argsort(-counts, kind="stable")]
    colors = np.minimum(
        np.vectorize({label: i for i, label in enumerate(by_count)}.get)(result.label), COLORS - 1
    )
    axes.imshow(colors, extent=_extent(result), cmap="tab10", vmin=0, vmax=COLORS - 1)
    axes.set_title("most probable class", fontsize=9)
    for i, label in enumerate(by_count[:3]):
        axes.plot([], [], "s", color=f"C{i}", label=plain_name(name(int(label))))
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.01), fontsize=8, frameon=False,
        handletextpad=0.1, labelspacing=0.2,
    )  # fmt: skip

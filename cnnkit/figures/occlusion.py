"""What a network answers while parts of an image are covered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import center_on_gray, new_figure, save_figure

if TYPE_CHECKING:
    from cnnkit.visualize import OcclusionMaps, Projection

# Labels beyond these share the last color.
COLORS = 10
# Of a projection's values, those that end up black or white.
CUT = 0.005


def draw_occlusion(
    image: np.ndarray,
    result: OcclusionMaps,
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    others: Sequence[Projection] = (),
) -> None:
    """Draws the five columns of Zeiler & Fergus 2013, Fig. 7, as a PNG.

    The image with the square where the probability is lowest; the activity of the strongest map;
    its projection, with a black square where covering takes most of the map's activity; the
    probability of the class; the most probable class. Grids lie where the middles of the squares
    were.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: What `cnnkit.visualize.occlusion.occlusion` returned for it.
        path: Where the picture goes.
        names: Names of the classes; None is their numbers.
        others: The same unit's projections from other images, drawn beside the image's own, all of
            them as far as the unit sees; the image's own then has a black frame.

    Raises:
        UsageError: If matplotlib is not installed.
    """

    def name(label: int) -> str:
        return names[label] if names else f"class {label}"

    figure = new_figure(15, 4.1)
    covered, activity, projected, probability, labels = figure.subplots(1, 5)
    row, column = np.unravel_index(result.probability.argmin(), result.probability.shape)
    shown = np.array(image, np.float32)
    top, left = result.rows[row], result.columns[column]
    shown[top : top + result.square[0], left : left + result.square[1]] = result.fill
    covered.imshow(np.clip(shown / 255, 0, 1))
    covered.set_title("covered where the class\nsuffers most", fontsize=9)
    _grid(activity, result, result.activity, figure)
    activity.set_title(
        f"sum of {result.layer} unit {result.unit}\n{result.clean_activity:.3g} uncovered",
        fontsize=9,
    )
    _projections(projected, result, others)
    _grid(probability, result, result.probability, figure, vmin=0, vmax=1)
    probability.set_title(
        f"probability of {name(result.target)}\n{result.clean_probability:.3g} uncovered",
        fontsize=9,
    )
    _labels(labels, result, name)
    for axes in (covered, activity, projected, probability, labels):
        axes.set(xticks=[], yticks=[])
        axes.set_xlim(-0.5, image.shape[1] - 0.5)
        axes.set_ylim(image.shape[0] - 0.5, -0.5)
    height, width = result.square
    figure.subplots_adjust(left=0.01, right=0.97, top=0.86, bottom=0.16, wspace=0.14)
    figure.text(
        0.5,
        0.02,
        f"a square of {height} x {width} pixels, {result.probability.size} places, each drawn at"
        " its middle · a projection's gray is 0, its scale is left by 0.5 % of the values"
        + ("" if others else " · black: where the activity is lowest"),
        ha="center",
        fontsize=9,
    )
    save_figure(figure, path, dpi=70)


def _projections(axes, result: OcclusionMaps, others: Sequence[Projection]) -> None:
    # Here, so that without matplotlib `new_figure` is the one to say so.
    from matplotlib.patches import Rectangle

    own = result.projection
    title = "the unit's strongest place,\nprojected to the pixels"
    if own is None:
        axes.text(0.5, 0.5, "no projection", ha="center", transform=axes.transAxes)
    elif not others:
        axes.imshow(center_on_gray(own.projection, cut=CUT))
        row, column = np.unravel_index(result.activity.argmin(), result.activity.shape)
        corner = result.columns[column] - 0.5, result.rows[row] - 0.5
        height, width = result.square
        axes.add_patch(Rectangle(corner, width, height, fill=False, color="black"))
    else:
        title += ", and\nfrom other images"
        side = math.ceil(math.sqrt(1 + len(others)))
        for n, one in enumerate((own, *others)):
            row, column = divmod(n, side)
            # From the top; a little is left between them.
            place = (column / side, 1 - (row + 1) / side, 0.96 / side, 0.96 / side)
            inset = axes.inset_axes(place, xticks=[], yticks=[])
            inset.imshow(center_on_gray(one.projection[one.box.slices], cut=CUT))
            inset.spines[:].set(color="black", linewidth=2.5 if one is own else 0.3)
            if not one.projection.any():
                inset.text(0.5, 0.5, "silent", ha="center", fontsize=7, transform=inset.transAxes)
        axes.set_frame_on(False)
    axes.set_title(title, fontsize=9)


def _grid(axes, result: OcclusionMaps, values: np.ndarray, figure, **options):
    drawn = axes.imshow(values, extent=_extent(result), **options)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=7)


def _extent(result: OcclusionMaps) -> tuple[float, float, float, float]:
    """Returns left, right, bottom and top of the grid on the image: cells around the middles."""
    sides = []
    for first, size in zip((result.rows, result.columns), result.square, strict=True):
        step = first[1] - first[0] if len(first) > 1 else size
        middle = size / 2 - 0.5
        sides.append((first[0] + middle - step / 2, first[-1] + middle + step / 2))
    (top, bottom), (left, right) = sides
    return left, right, bottom, top


def _labels(axes, result: OcclusionMaps, name) -> None:
    found, counts = np.unique(result.label, return_counts=True)
    often = found[np.argsort(-counts, kind="stable")]
    places = np.minimum(
        np.vectorize({label: i for i, label in enumerate(often)}.get)(result.label), COLORS - 1
    )
    axes.imshow(places, extent=_extent(result), cmap="tab10", vmin=0, vmax=COLORS - 1)
    axes.set_title("most probable class", fontsize=9)
    for i, label in enumerate(often[:3]):
        axes.plot([], [], "s", color=f"C{i}", label=name(int(label)))
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.01), fontsize=7, ncols=3, frameon=False,
        handletextpad=0.1, columnspacing=0.8,
    )  # fmt: skip

"""Which pixels an answer depends on, beside and over the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import about_grey, new_figure, save

if TYPE_CHECKING:
    from cnnkit.visualize import Attribution, Maximized

# Of the values above zero, those that are drawn as the brightest.
CUT = 0.005


def draw_attribution(
    image: np.ndarray, result: Attribution, path: str | Path, *, name: str | None = None
) -> None:
    """Draws an image, what counts in it for a class, and both over each other, as a PNG.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: What `cnnkit.visualize.saliency`, `gradcam` and the like returned for it.
        path: Where the picture goes.
        name: Name of the class; None is its number.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    figure = new_figure(9.6, 3.7)
    shown, alone, over = figure.subplots(1, 3)
    pixels = np.clip(image / 255, 0, 1)
    strength = in_unit(result.map)
    shown.imshow(pixels)
    shown.set_title("image", fontsize=10)
    options = {"cmap": "inferno", "vmin": 0, "vmax": 1}
    drawn = alone.imshow(strength, **options)
    alone.set_title(f"{result.method}, {name or f'class {result.target}'}", fontsize=10)
    over.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    over.imshow(strength, alpha=0.25 + 0.6 * strength, **options)
    over.set_title("over the image", fontsize=10)
    for axes in (shown, alone, over):
        axes.set_axis_off()
    figure.subplots_adjust(left=0.01, right=0.91, top=0.9, bottom=0.12, wspace=0.04)
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.92, 0.16, 0.012, 0.7)), ticks=[0, 1])
    bar.ax.set_yticklabels(["0", f"{largest(result.map):.2g}"], fontsize=7)
    where = ""
    if result.grid is not None:
        where = f"maps of {result.layer}, {' x '.join(map(str, result.grid.shape))} places · "
    figure.text(
        0.5,
        0.03,
        f"logit {result.score:.3g} · {where}"
        f"the {CUT:.1%} largest values share the brightest colour",
        ha="center",
        fontsize=9,
    )
    save(figure, path, dpi=100)


def draw_maximized(results: Sequence[Maximized], path: str | Path) -> None:
    """Draws images that were made to excite units side by side, as a PNG.

    Args:
        results: What `cnnkit.visualize.activation_maximization` returned; one at least.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    columns = min(4, len(results))
    rows = -(-len(results) // columns)
    figure = new_figure(2.6 * columns, 2.9 * rows + 0.35)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.set_axis_off()
    for axes, one in zip(places, results, strict=False):
        axes.imshow(np.clip(one.image / 255, 0, 1))
        axes.set_title(
            f"{one.layer} unit {one.unit}\n{one.start:.3g} → {one.activation:.3g}", fontsize=9
        )
    below = 0.35 / (2.9 * rows + 0.35)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.4 / (2.9 * rows + 0.35), bottom=below,
                           wspace=0.04, hspace=0.2)  # fmt: skip
    caption = "made from noise; the unit's answer to the noise → to the image"
    figure.text(0.5, below / 4, caption, ha="center", fontsize=8)
    save(figure, path, dpi=100)


def largest(values: np.ndarray) -> float:
    """Returns the value that is drawn as the brightest."""
    above = values[values > 0]
    return float(np.quantile(above, 1 - CUT)) if above.size else 1.0


def in_unit(values: np.ndarray) -> np.ndarray:
    """Returns values of 0 or more in 0..1."""
    return np.clip(values / largest(values), 0, 1)


def shown_as(values: np.ndarray) -> tuple[np.ndarray, dict]:
    """Returns how a map (h, w), or signed pixels (h, w, 3), are drawn, and options for `imshow`."""
    if values.ndim == 3:
        return about_grey(values, cut=CUT), {}
    return in_unit(values), {"cmap": "inferno", "vmin": 0, "vmax": 1}

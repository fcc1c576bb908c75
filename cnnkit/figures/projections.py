"""Projections of units beside what they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import about_grey, new_figure, save

if TYPE_CHECKING:
    from cnnkit.visualize import Projection


def draw_projection(image: np.ndarray, result: Projection, path: str | Path) -> None:
    """Draws an image beside the projection of one of its units, as a PNG.

    Grey is zero; all three channels share one scale, so that the sign and the colour stay true.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: What `cnnkit.visualize.deconvnet` returned for it.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    figure = new_figure(7, 3.8)
    left, right = figure.subplots(1, 2)
    left.imshow(np.clip(image / 255, 0, 1))
    left.set_title("image")
    largest = float(np.abs(result.projection).max())
    right.imshow(about_grey(result.projection))
    right.set_title(f"{result.rule}, {result.layer} unit {result.unit}")
    for axes in (left, right):
        axes.set_axis_off()
    scale = f"grey is 0, black and white are ∓{largest:.2g}"
    caption = f"activation {result.activation:.3g}{result.where} · {scale}"
    figure.text(0.5, 0.04, caption, ha="center", fontsize=9)
    save(figure, path, dpi=150)


def draw_rules(image: np.ndarray, rows: Sequence[Sequence[Projection]], path: str | Path) -> None:
    """Draws what each unit saw, and its projections by several rules beside it, as a PNG.

    Every picture shows the unit's receptive field. Grey is zero, each projection has a scale of its
    own.

    Args:
        image: (h, w, 3) RGB in 0..255.
        rows: For every unit its projections, one a rule, the rules in the same order.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    columns = 1 + len(rows[0])
    figure = new_figure(2.2 * columns, 2.5 * len(rows) + 0.4)
    for axes, results in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        seen = results[0].box.slices
        axes[0].imshow(np.clip(image[seen] / 255, 0, 1))
        axes[0].set_title(f"{results[0].layer} unit {results[0].unit}", fontsize=9)
        for one, result in zip(axes[1:], results, strict=True):
            one.imshow(about_grey(result.projection[seen]))
            one.set_title(result.rule, fontsize=9)
        for one in axes:
            one.set_axis_off()
    caption = "receptive fields; grey is 0, each projection on its own scale"
    figure.subplots_adjust(left=0.02, right=0.98, top=0.95, bottom=0.05, wspace=0.06, hspace=0.16)
    figure.text(0.5, 0.01, caption, ha="center", fontsize=9)
    save(figure, path, dpi=70)

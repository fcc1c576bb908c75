"""The second layers of networks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import about_grey, new_figure, save
from cnnkit.figures.top9 import CUT, placed, square

if TYPE_CHECKING:
    from cnnkit.visualize import Layer2


def draw_layer2(networks: Sequence[Layer2], path: str | Path) -> None:
    """Draws each network's second-layer projections beside what they saw, as a PNG.

    Zeiler & Fergus 2013, Fig. 6 (d) and (e), with the counts of (b) and (c). Grey is zero, every
    projection has a scale of its own, which the largest of its values leave.

    Args:
        networks: What `cnnkit.visualize.layer2` returned for each.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    figure = new_figure(8.2, 4.5 * len(networks) + 0.3)
    grid = figure.subplots(len(networks), 2, squeeze=False)
    for (left, right), seen in zip(grid, networks, strict=True):
        kernels, tops = seen.filters, [top for top in seen.tops if top.projections]
        height, width = kernels.kernels.shape[1:3]
        left.set_title(
            f"{seen.model}, {kernels.layer}: {len(kernels.kernels)} kernels of {height} x {width},"
            f" {int(kernels.dead.sum())} dead, {len(seen.silent)} silent\n{seen.layer}:"
            f" {len(seen.dead)} of {seen.units} silent, one every {seen.field.stride[0]} pixels",
            fontsize=8,
        )
        right.set_title("what they saw", fontsize=8)
        for axes in (left, right):
            axes.set_axis_off()
        if tops:
            shape = tops[0].patches[0].shape
            left.imshow(
                square([about_grey(placed(t.projections[0], shape), cut=CUT) for t in tops])
            )
            right.imshow(square([np.clip(t.patches[0] / 255, 0, 1) for t in tops]))
    rules = sorted({t.projections[0].rule for n in networks for t in n.tops if t.projections})
    caption = (
        f"{', '.join(rules)} of units' strongest activation · grey is 0, each on its own scale,"
        f" which {100 * CUT:g} % of its values leave"
    )
    figure.subplots_adjust(left=0.01, right=0.99, top=0.94, bottom=0.05, wspace=0.03, hspace=0.14)
    figure.text(0.5, 0.012, caption, ha="center", fontsize=8)
    save(figure, path, dpi=80)

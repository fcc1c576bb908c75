"""How alike features change when the same part is hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import new_figure, save

if TYPE_CHECKING:
    from cnnkit.visualize import Box, Correspondence


def draw_correspondence(
    images: np.ndarray,
    boxes: Mapping[str, Sequence[Box]],
    found: Mapping[str, Correspondence],
    path: str | Path,
    *,
    fill: float = 128,
) -> None:
    """Draws the images with each part hidden, and Delta of every part, as a PNG.

    Zeiler & Fergus 2013, Fig. 8 and Table 1.

    Args:
        images: (n, h, w, 3) RGB in 0..255.
        boxes: The parts' places.
        found: What `cnnkit.visualize.correspondence` returned for them.
        path: Where the picture goes.
        fill: What hides a part.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    figure = new_figure(1.1 * len(images) + 4.2, 1.15 * (1 + len(boxes)) + 0.5)
    left, right = figure.subfigures(1, 2, width_ratios=(1.1 * len(images), 4.2))
    grid = left.subplots(1 + len(boxes), len(images), squeeze=False)
    for line, part in zip(grid, ("whole", *boxes), strict=True):
        line[0].set_ylabel(part, fontsize=8)
        for i, axes in enumerate(line):
            image = images[i].copy()
            if part in boxes:
                image[boxes[part][i].slices] = fill
            axes.imshow(np.clip(image / 255, 0, 1))
            axes.set(xticks=[], yticks=[])
    left.subplots_adjust(left=0.08, right=0.99, top=0.98, bottom=0.06, wspace=0.05, hspace=0.05)
    axes = right.subplots()
    width = 0.8 / len(found)
    for number, one in enumerate(found.values()):
        at = np.arange(len(one.parts)) + (number - (len(found) - 1) / 2) * width
        axes.bar(
            at,
            [one.mean(part) for part in one.parts],
            width,
            yerr=[one.deviation(part) for part in one.parts],
            capsize=2,
            label=one.layer,
        )
    parts = next(iter(found.values())).parts
    axes.set_xticks(range(len(parts)), parts, fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title("units whose change differs in sign\nmean and deviation over pairs", fontsize=8)
    # Room above the bars for the legend.
    axes.margins(y=0.25)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, ncols=len(found), loc="upper right")
    right.subplots_adjust(left=0.12, right=0.97, top=0.86, bottom=0.14)
    save(figure, path, dpi=90)

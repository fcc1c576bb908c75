"""Test images with what the network took them for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.figures.canvas import new_figure, save

RIGHT, WRONG = "lightcoral", "lightsteelblue"


def draw_answers(
    images: Sequence[np.ndarray],
    answers: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    columns: int = 4,
) -> None:
    """Draws images with bars of their most probable classes, as a PNG.

    As Krizhevsky et al. 2012, Fig. 4 (left): below each image its right class, and the five
    classes that the network finds most probable; the bar of the right one, where it is among
    them, is red.

    Args:
        images: (h, w, 3) uint8 RGB each, of any size.
        answers: For each image its `label`, the `probability` of that, and `top`: pairs of a class
            and its probability, 0..1, the most probable one first.
        path: Where the picture goes.
        columns: Images in a row.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    figure = new_figure(2.5 * columns, 3.9 * rows + 0.3)
    ratios = [2.3, 1.3] * rows
    grid = figure.add_gridspec(
        2 * rows, columns, height_ratios=ratios, hspace=0.22, wspace=0.08,
        left=0.02, right=0.98, top=0.98, bottom=0.25 / (3.9 * rows + 0.3) + 0.01,
    )  # fmt: skip
    for place, (image, answer) in enumerate(zip(images, answers, strict=True)):
        row, column = divmod(place, columns)
        picture = figure.add_subplot(grid[2 * row, column])
        picture.imshow(image, interpolation="nearest" if max(image.shape) < 64 else "antialiased")
        picture.set_axis_off()
        picture.text(
            0.5, -0.04, answer["label"], transform=picture.transAxes, ha="center", va="top",
            fontsize=9, fontweight="bold",
        )  # fmt: skip
        _bars(figure.add_subplot(grid[2 * row + 1, column]), answer)
    caption = "the right class in bold; bars are probabilities, that of the right class is red"
    figure.text(0.5, 0.005, caption, ha="center", fontsize=8)
    save(figure, path, dpi=110)


def _bars(axes, answer: Mapping[str, Any]) -> None:
    names = [name for name, _ in answer["top"]]
    values = [probability for _, probability in answer["top"]]
    colours = [RIGHT if name == answer["label"] else WRONG for name in names]
    axes.barh(range(len(names)), values, color=colours, height=0.8)
    for number, (name, value) in enumerate(answer["top"]):
        axes.text(0.02, number, f"{name}  {value:.1%}", va="center", fontsize=7.5)
    axes.set(xlim=(0, 1), xticks=[], yticks=[], ylim=(4.6, -0.6))

"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnkit.figures.canvas import new_figure, save

# Above this many classes numbers in the cells, and then their names, are too small to be read.
NUMBERED, NAMED = 20, 60


def draw_confusion(
    matrix: np.ndarray, labels: Sequence[str], path: str | Path, *, title: str = ""
) -> None:
    """Draws a confusion matrix, as a PNG.

    Rows are the right classes and columns the answers; the shade is the part of a row, the number
    counts images. Classes without images are left out where nothing was answered with them either.

    Args:
        matrix: (classes, classes) int, as `cnnkit.evaluation.Evaluation.confusion_matrix` gives it.
        labels: Names of the classes.
        path: Where the picture goes.
        title: What stands above it.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    used = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    matrix, names = matrix[np.ix_(used, used)], [labels[i] for i in used]
    rows = matrix.sum(axis=1, keepdims=True)
    parts = matrix / np.maximum(rows, 1)
    side = float(np.clip(0.42 * len(used), 3.5, 12))
    figure = new_figure(side + 2.2, side + 1.6)
    axes = figure.add_subplot()
    shown = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03, label="part of the class")
    axes.set(xlabel="answer", ylabel="right class", title=title)
    axes.title.set_fontsize(9)
    if len(used) <= NAMED:
        axes.set_xticks(range(len(used)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(used)), names, fontsize=8)
    if len(used) <= NUMBERED:
        for row, column in np.argwhere(matrix):
            colour = "white" if parts[row, column] > 0.5 else "black"
            axes.text(
                column, row, matrix[row, column], ha="center", va="center", fontsize=8, color=colour
            )
    figure.tight_layout()
    save(figure, path, dpi=110)

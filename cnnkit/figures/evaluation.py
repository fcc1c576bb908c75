"""Figures of an evaluation: confusion matrix, reliability diagram, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from cnnkit.figures.canvas import PictureOptions, lay_out, new_figure, plain_name, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Largest numbers of classes for which the counts in the cells, and the class names, are readable.
MAX_COUNTED, MAX_NAMED = 20, 60
# Colors of the bars of right and wrong classes.
RIGHT, WRONG = "lightcoral", "lightsteelblue"


def draw_confusion(
    matrix: np.ndarray,
    labels: Sequence[str],
    path: str | Path,
    *,
    title: str = "",
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw a confusion matrix.

    Rows are true classes and columns predicted classes. The shade is the fraction of the row, the
    number counts images. Classes that are neither true nor predicted are left out.

    Args:
        matrix: (classes, classes) int, from `cnnkit.evaluation.Evaluation.confusion_matrix`.
        labels: Names of the classes.
        path: File to write: .png, .svg or .pdf.
        title: Title of the figure.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    used = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    matrix, names = matrix[np.ix_(used, used)], [plain_name(labels[i]) for i in used.tolist()]
    rows = matrix.sum(axis=1, keepdims=True)
    fractions = matrix / np.maximum(rows, 1)
    side = float(np.clip(0.42 * len(used), 3.5, 12))
    figure = new_figure(side + 2.2, side + 1.6)
    axes = figure.add_subplot()
    shown = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03, label="part of the class")
    axes.set(xlabel="answer", ylabel="right class", title=title)
    axes.title.set_fontsize(9)
    if len(used) <= MAX_NAMED:
        axes.set_xticks(range(len(used)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(used)), names, fontsize=8)
    if len(used) <= MAX_COUNTED:
        for row, column in np.argwhere(matrix):
            color = "white" if fractions[row, column] > 0.5 else "black"
            axes.text(
                column, row, matrix[row, column], ha="center", va="center", fontsize=8, color=color
            )
    lay_out(figure)
    save_figure(figure, path, 110, **picture)


def draw_reliability(
    bins: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    title: str = "",
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw a reliability diagram (Guo et al. 2017, Fig. 1).

    Above, for the images of each bin of confidence: the accuracy as a bar, and the mean confidence
    as a line. In a calibrated network every bar ends at its line. Below: the number of images in
    each bin.

    Args:
        bins: `low`, `high`, `images`, `confidence` and `accuracy` of each bin, as in the results of
            an evaluation; the last two are None for a bin without images.
        path: File to write: .png, .svg or .pdf.
        title: Title of the figure.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    figure = new_figure(5.2, 5.6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = bins[0]["high"] - bins[0]["low"]
    filled = [one for one in bins if one["images"]]
    axes.bar(
        [one["low"] for one in filled],
        [one["accuracy"] for one in filled],
        width,
        align="edge",
        color="tab:blue",
        edgecolor="white",
        label="answered right",
    )
    axes.hlines(
        [one["confidence"] for one in filled],
        [one["low"] for one in filled],
        [one["high"] for one in filled],
        color="tab:red",
        linewidth=2,
        label="mean confidence",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="part of the images")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=8, frameon=False)
    below.bar(
        [one["low"] for one in bins],
        [one["images"] for one in bins],
        width,
        align="edge",
        color="0.6",
        edgecolor="white",
    )
    below.set(xlabel="probability of the most probable class", ylabel="images")
    figure.suptitle(title, fontsize=9)
    lay_out(figure)
    save_figure(figure, path, 110, **picture)


def draw_predictions(
    images: Sequence[np.ndarray],
    predictions: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    columns: int = 4,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw images with bars of their most probable classes (Krizhevsky et al. 2012, Fig. 4 left).

    Below each image are its true class and the five most probable classes. The bar of the true
    class is red, if it is one of them.

    Args:
        images: (h, w, 3) uint8 RGB each, of any size.
        predictions: For each image its true `label`, the `probability` of that label, and `top`:
            pairs of class and probability, 0..1, in descending probability.
        path: File to write: .png, .svg or .pdf.
        columns: Number of images in a row.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    figure = new_figure(2.5 * columns, 3.9 * rows + 0.3)
    ratios = [2.3, 1.3] * rows
    grid = figure.add_gridspec(
        2 * rows, columns, height_ratios=ratios, hspace=0.22, wspace=0.08,
        left=0.02, right=0.98, top=0.98, bottom=0.25 / (3.9 * rows + 0.3) + 0.01,
    )  # fmt: skip
    for number, (image, prediction) in enumerate(zip(images, predictions, strict=True)):
        row, column = divmod(number, columns)
        axes = figure.add_subplot(grid[2 * row, column])
        axes.imshow(image, interpolation="nearest" if max(image.shape) < 64 else "antialiased")
        axes.set_axis_off()
        axes.text(
            0.5, -0.04, prediction["label"], transform=axes.transAxes, ha="center", va="top",
            fontsize=9, fontweight="bold",
        )  # fmt: skip
        _draw_bars(figure.add_subplot(grid[2 * row + 1, column]), prediction)
    caption = "the right class in bold; bars are probabilities, that of the right class is red"
    figure.text(0.5, 0.005, caption, ha="center", fontsize=8)
    save_figure(figure, path, 110, **picture)


def _draw_bars(axes: Axes, prediction: Mapping[str, Any]) -> None:
    names = [name for name, _ in prediction["top"]]
    values = [probability for _, probability in prediction["top"]]
    colors = [RIGHT if name == prediction["label"] else WRONG for name in names]
    axes.barh(range(len(names)), values, color=colors, height=0.8)
    for number, (name, value) in enumerate(prediction["top"]):
        axes.text(0.02, number, f"{name}  {value:.1%}", va="center", fontsize=7.5)
    axes.set(xlim=(0, 1), xticks=[], yticks=[], ylim=(4.6, -0.6))

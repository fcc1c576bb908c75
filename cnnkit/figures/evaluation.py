"""Figures of an evaluation: confusion matrix, reliability diagram, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from cnnkit._pixels import as_rgb
from cnnkit.figures.attribution import explanation_pixels, is_signed
from cnnkit.figures.canvas import (
    TEXT,
    TICKS,
    TITLE,
    PictureOptions,
    add_caption,
    lay_out,
    new_figure,
    plain_name,
    save_figure,
    text_height,
    wrap_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnkit.visualize import Attribution

# Largest numbers of classes for which the counts in the cells, and the class names, are readable.
MAX_COUNTED, MAX_NAMED = 20, 60
# Characters of the name of a file and of a class below an image.
MAX_FILE, MAX_CLASS = 38, 24
# Opacity of the bar of a bin with hardly any images.
PALEST = 0.2
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
    axes.title.set_text(wrap_text(title, side + 1.5, TEXT))
    axes.title.set_fontsize(TEXT)
    if len(used) <= MAX_NAMED:
        axes.set_xticks(range(len(used)), names, rotation=90, fontsize=TICKS)
        axes.set_yticks(range(len(used)), names, fontsize=TICKS)
    if len(used) <= MAX_COUNTED:
        for row, column in np.argwhere(matrix):
            color = "white" if fractions[row, column] > 0.5 else "black"
            axes.text(
                column, row, matrix[row, column], ha="center", va="center", fontsize=TICKS,
                color=color,
            )  # fmt: skip
    lay_out(figure)
    save_figure(figure, path, **picture)


def draw_reliability(
    bins: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    title: str = "",
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw a reliability diagram (Guo et al. 2017, Fig. 1).

    Above, for the images of each bin of confidence: the accuracy as a bar, and the mean confidence
    as a line. In a calibrated network every bar ends at its line. A bar of few images is pale, and
    its standard error is long. Below: the number of images in each bin.

    Args:
        bins: `low`, `high`, `images`, `confidence` and `accuracy` of each bin, as in the results of
            an evaluation; the last two are None for a bin without images.
        path: File to write: .png, .svg or .pdf.
        title: Title of the figure.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    figure = new_figure(6.4, 6.8)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = bins[0]["high"] - bins[0]["low"]
    filled = [one for one in bins if one["images"]]
    most = max((one["images"] for one in filled), default=1)
    lows, rates = ([one[key] for one in filled] for key in ("low", "accuracy"))
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    bars = axes.bar(
        lows,
        rates,
        width,
        align="edge",
        color="tab:blue",
        edgecolor="white",
        label="answered right",
    )
    for bar, one in zip(bars, filled, strict=True):
        # A bin of few images is pale, because its accuracy is uncertain.
        bar.set_alpha(PALEST + (1 - PALEST) * (one["images"] / most) ** 0.5)
    errors = [(one["accuracy"] * (1 - one["accuracy"]) / one["images"]) ** 0.5 for one in filled]
    centers = [low + width / 2 for low in lows]
    axes.errorbar(
        centers, rates, errors, fmt="none", ecolor="0.3", capsize=3, label="standard error"
    )
    axes.hlines(
        [one["confidence"] for one in filled],
        lows,
        [one["high"] for one in filled],
        color="tab:red",
        linewidth=3,
        label="mean confidence",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_ylabel("part of the images", fontsize=TEXT)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=TICKS, frameon=False)
    counts = below.bar(
        [one["low"] for one in bins],
        [one["images"] for one in bins],
        width,
        align="edge",
        color="0.6",
        edgecolor="white",
    )
    below.bar_label(counts, [f"{one['images']:,}" if one["images"] else "" for one in bins],
                    fontsize=TICKS)  # fmt: skip
    below.margins(y=0.25)
    below.set_xlabel("probability of the most probable class", fontsize=TEXT)
    below.set_ylabel("images", fontsize=TEXT)
    figure.suptitle(wrap_text(title, 6, TITLE), fontsize=TITLE)
    lay_out(figure)
    save_figure(figure, path, **picture)


def draw_predictions(
    images: Sequence[np.ndarray],
    predictions: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    columns: int = 4,
    explanations: Sequence[Attribution] | None = None,
    class_names: Sequence[str] | None = None,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw images with bars of their most probable classes (Krizhevsky et al. 2012, Fig. 4 left).

    Below each image stand the name of its file, its true class if that is known, and the most
    probable classes. The bar of the true class is red, if it is one of them.

    Args:
        images: (h, w, 3) uint8 RGB, or (h, w, 1) gray, of any size each.
        predictions: For each image `top`: pairs of class and probability, 0..1, in descending
            probability; its true class, `label`, or None; and the `name` of its file, or none.
        path: File to write: .png, .svg or .pdf.
        columns: Number of images in a row.
        explanations: For each image the explanation of a class, from
            `cnnkit.visualize.explain_class`, which is drawn below it.
        class_names: Names of the classes, for the titles of the explanations.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    # Heights in inches: images, explanations, bars and their texts.
    most = max([3, *(len(one["top"]) for one in predictions)])
    heights = [2.6] * (1 if explanations is None else 2) + [0.28 * most]
    parts, gap = len(heights), 0.48
    caption = wrap_text(_caption(predictions, explanations), 3.0 * columns - 0.3)
    below = text_height(caption)
    height = rows * (sum(heights) + gap * parts) + below + 0.05
    figure = new_figure(3.0 * columns, height)
    grid = figure.add_gridspec(
        parts * rows, columns, height_ratios=heights * rows, wspace=0.08,
        hspace=gap * parts / sum(heights),
        left=0.02, right=0.98, top=1 - 0.1 / height, bottom=below / height,
    )  # fmt: skip
    for number, (image, prediction) in enumerate(zip(images, predictions, strict=True)):
        row, column = divmod(number, columns)
        cells = [figure.add_subplot(grid[parts * row + part, column]) for part in range(parts)]
        interpolation = "nearest" if max(image.shape) < 64 else "antialiased"
        cells[0].imshow(as_rgb(image), interpolation=interpolation)
        _write_below(cells[0], prediction.get("name"), prediction.get("label"))
        if explanations is not None:
            _draw_explanation(cells[1], image, explanations[number], class_names)
        _draw_bars(cells[-1], prediction, most)
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


def _caption(
    predictions: Sequence[Mapping[str, Any]], explanations: Sequence[Attribution] | None
) -> str:
    known = any(one.get("label") is not None for one in predictions)
    caption = "bars are probabilities" + (
        ", that of the right class, in bold above, is red" if known else ""
    )
    if explanations is None:
        return caption
    signed = any(map(is_signed, explanations))
    return caption + (" · gray is 0" if signed else " · bright pixels speak for the class")


def _write_below(axes: Axes, name: str | None, label: str | None) -> None:
    """Write the name of a file and the true class below an image."""
    axes.set_axis_off()
    texts = [] if name is None else [(shorten_front(name, MAX_FILE), "normal", TICKS)]
    texts += [] if label is None else [(shorten_end(label, MAX_CLASS), "bold", TEXT)]
    for line, (text, weight, size) in enumerate(texts):
        axes.annotate(
            text, (0.5, 0), xycoords="axes fraction", xytext=(0, -4 - 14 * line),
            textcoords="offset points", ha="center", va="top", fontsize=size, fontweight=weight,
        )  # fmt: skip


def _draw_explanation(
    axes: Axes, image: np.ndarray, one: Attribution, class_names: Sequence[str] | None
) -> None:
    axes.imshow(explanation_pixels(image, one))
    name = class_names[one.target] if class_names else f"class {one.target}"
    _write_below(axes, f"{one.method} of {shorten_end(name, MAX_CLASS)}", None)


def shorten_front(text: str, most: int) -> str:
    """Return the end of a long text behind an ellipsis.

    Example:
        >>> shorten_front("photos/holidays/cat.jpg", 12)
        '…ays/cat.jpg'
    """
    text = plain_name(text)
    return text if len(text) <= most else f"…{text[1 - most :]}"


def shorten_end(text: str, most: int) -> str:
    """Return the beginning of a long text before an ellipsis.

    Example:
        >>> shorten_end("golden retriever", 8)
        'golden …'
    """
    text = plain_name(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _draw_bars(axes: Axes, prediction: Mapping[str, Any], most: int) -> None:
    names = [name for name, _ in prediction["top"]]
    values = [probability for _, probability in prediction["top"]]
    colors = [RIGHT if name == prediction.get("label") else WRONG for name in names]
    axes.barh(range(len(names)), values, color=colors, height=0.8)
    for number, (name, value) in enumerate(prediction["top"]):
        text = f"{shorten_end(name, MAX_CLASS)}  {value:.1%}"
        axes.text(0.02, number, text, va="center", fontsize=10)
    axes.set(xlim=(0, 1), xticks=[], yticks=[], ylim=(most - 0.4, -0.6))

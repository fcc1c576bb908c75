"""Figures of transfer: recall against training images, and nearest neighbors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from cnnkit._pixels import as_rgb
from cnnkit.figures.canvas import (
    TEXT,
    TICKS,
    TITLE,
    PictureOptions,
    add_caption,
    hide_axes,
    lay_out,
    new_figure,
    plain_name,
    save_figure,
    text_height,
    wrap_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnkit.features import Neighbor
    from cnnkit.transfer import TransferScore

# Side of an image, and the two lines above it, in inches. A line has 18 letters.
SIDE, LINES = 1.7, 0.45
MAX_LINE = 18


def draw_learning_curve(
    scores: Sequence[TransferScore],
    path: str | Path,
    *,
    title: str = "",
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw mean class recall against the number of training images of each class.

    As Zeiler & Fergus 2013, Fig. 9: a line for each layer and classifier, with error bars of one
    standard deviation over the random splits.

    Args:
        scores: Result of `cnnkit.transfer.evaluate_transfer` for several numbers of training
            images.
        path: File to write: .png, .svg or .pdf.
        title: Title of the figure.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    lines: dict[tuple[str, str], list[TransferScore]] = {}
    for one in scores:
        lines.setdefault((one.layer, one.classifier), []).append(one)
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    for (layer, classifier), line in lines.items():
        line = sorted(line, key=lambda score: score.per_class)
        axes.errorbar(
            [score.per_class for score in line],
            [100 * score.mean for score in line],
            yerr=[100 * (score.std or 0) for score in line],
            marker="o",
            markersize=4,
            capsize=3,
            label=plain_name(f"{layer}, {classifier}"),
        )
    numbers = sorted({score.per_class for score in scores})
    axes.set_xticks(numbers, labels=map(str, numbers))
    axes.set_xlim(0, numbers[-1] * 1.04)
    axes.set_xlabel("training images of each class", fontsize=TEXT)
    axes.set_ylabel("mean class recall (%)", fontsize=TEXT)
    axes.grid(alpha=0.3)
    splits = len(scores[0].splits)
    axes.legend(
        fontsize=TEXT, loc="lower right", title=f"mean and deviation of {splits} splits",
        title_fontsize=TICKS,
    )  # fmt: skip
    axes.set_title(wrap_text(title, 5.5, TITLE), fontsize=TITLE)
    lay_out(figure)
    save_figure(figure, path, **picture)


def draw_neighbors(
    queries: Sequence[np.ndarray],
    titles: Sequence[str],
    found: Sequence[Sequence[Neighbor]],
    images: Sequence[Sequence[np.ndarray]],
    path: str | Path,
    *,
    caption: str = "",
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw a contact sheet: a row for each query, its nearest images to the right of it.

    As Krizhevsky et al. 2012, Fig. 4 right; every image has its class and its distance.

    Args:
        queries: Images, (h, w, 3) RGB in 0..255.
        titles: Title of each query.
        found: Result of `cnnkit.features.find_neighbors` for the queries.
        images: Images of `found`.
        path: File to write: .png, .svg or .pdf.
        caption: Text below the images.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    columns = 1 + max(len(row) for row in found)
    width = SIDE * columns + 0.3
    caption = wrap_text(caption, width - 0.2)
    below = text_height(caption)
    height = (SIDE + LINES) * len(queries) + below
    figure = new_figure(width, height)
    # A narrow empty column separates the query from its neighbors.
    grid = figure.subplots(
        len(queries),
        columns + 1,
        squeeze=False,
        gridspec_kw={"width_ratios": [1, 0.12, *[1] * (columns - 1)]},
    )
    hide_axes(grid.flat)
    for row, query, title, near, pictures in zip(grid, queries, titles, found, images, strict=True):
        _draw_image(row[0], query, title, weight="bold")
        for axes, one, image in zip(row[2:], near, pictures, strict=False):
            _draw_image(axes, image, f"{one.label}\n{one.distance:.3g}")
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - LINES / height, bottom=below / height, wspace=0.05,
        hspace=LINES / SIDE,
    )  # fmt: skip
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


def _draw_image(axes: Axes, image: np.ndarray, title: str, **style: Any) -> None:
    axes.imshow(as_rgb(image))
    lines = [f"{one[: MAX_LINE - 1]}…" if len(one) > MAX_LINE else one for one in title.split("\n")]
    axes.set_title("\n".join(lines), fontsize=TICKS + 1, pad=2, **style)

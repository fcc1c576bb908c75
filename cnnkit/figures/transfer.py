"""How the accuracy of a transfer grows with the training images of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.figures.canvas import new_figure, save_figure

if TYPE_CHECKING:
    from cnnkit.transfer import TransferScore
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cnnkit.features import Neighbor


def draw_learning_curve(
    scores: Sequence[TransferScore], path: str | Path, *, title: str = ""
) -> None:
    """Draws mean class recall against training images of each class, as a PNG.

    As Zeiler & Fergus 2013, Fig. 9; a line for each layer and classifier, and a bar of one standard
    deviation over the random splits to both sides.

    Args:
        scores: What `cnnkit.transfer.evaluate_transfer` returned for several numbers of training images.
        path: Where the picture goes.
        title: What stands above.

    Raises:
        UsageError: If matplotlib is not installed.
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
            label=f"{layer}, {classifier}",
        )
    numbers = sorted({score.per_class for score in scores})
    axes.set_xticks(numbers, labels=map(str, numbers))
    axes.set_xlim(0, numbers[-1] * 1.04)
    axes.set_xlabel("training images of each class")
    axes.set_ylabel("mean class recall (%)")
    axes.grid(alpha=0.3)
    splits = len(scores[0].splits)
    axes.legend(
        fontsize=8, loc="lower right", title=f"mean and deviation of {splits} splits",
        title_fontsize=8,
    )  # fmt: skip
    axes.set_title(title, fontsize=9)
    figure.tight_layout()
    save_figure(figure, path, dpi=120)


SIDE = 1.45


def draw_neighbors(
    queries: Sequence[np.ndarray],
    titles: Sequence[str],
    found: Sequence[Sequence[Neighbor]],
    images: Sequence[Sequence[np.ndarray]],
    path: str | Path,
    *,
    caption: str = "",
) -> None:
    """Draws a contact sheet as a PNG: a row a query, its nearest images to the right of it.

    As Krizhevsky et al. 2012, Fig. 4 on the right; every image has its class and its distance.

    Args:
        queries: Images, (h, w, 3) RGB in 0..255.
        titles: What stands above each of them.
        found: What `cnnkit.features.find_neighbors` returned.
        images: The images of `found`.
        path: Where the picture goes.
        caption: What stands below.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    columns = 1 + max(len(row) for row in found)
    height = (SIDE + 0.3) * len(queries) + 0.35
    figure = new_figure(SIDE * columns + 0.3, height)
    # A narrow empty column parts the query from what was found.
    grid = figure.subplots(
        len(queries),
        columns + 1,
        squeeze=False,
        gridspec_kw={"width_ratios": [1, 0.12, *[1] * (columns - 1)]},
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for row, query, title, near, pictures in zip(grid, queries, titles, found, images, strict=True):
        _show(row[0], query, title, weight="bold")
        for axes, one, picture in zip(row[2:], near, pictures, strict=False):
            _show(axes, picture, f"{one.label}\n{one.distance:.3g}")
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.35 / height, bottom=0.3 / height, wspace=0.05, hspace=0.32
    )
    figure.text(0.5, 0.08 / height, caption, ha="center", fontsize=8)
    save_figure(figure, path, dpi=110)


def _show(axes, image: np.ndarray, title: str, **style) -> None:
    axes.imshow(np.clip(image / 255, 0, 1))
    axes.set_title(title, fontsize=7, pad=2, **style)

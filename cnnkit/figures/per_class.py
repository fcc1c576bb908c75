"""How the accuracy of a transfer grows with the training images of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.figures.canvas import new_figure, save

if TYPE_CHECKING:
    from cnnkit.transfer import Score


def draw_per_class(scores: Sequence[Score], path: str | Path, *, title: str = "") -> None:
    """Draws mean class recall against training images of each class, as a PNG.

    As Zeiler & Fergus 2013, Fig. 9; a line for each layer and classifier, and a bar of one standard
    deviation over the random splits to both sides.

    Args:
        scores: What `cnnkit.transfer.transfer` returned for several numbers of training images.
        path: Where the picture goes.
        title: What stands above.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    lines: dict[tuple[str, str], list[Score]] = {}
    for one in scores:
        lines.setdefault((one.layer, one.classifier), []).append(one)
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    for (layer, classifier), line in lines.items():
        line = sorted(line, key=lambda score: score.per_class)
        axes.errorbar(
            [score.per_class for score in line],
            [100 * score.mean for score in line],
            yerr=[100 * (score.deviation or 0) for score in line],
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
    save(figure, path, dpi=120)

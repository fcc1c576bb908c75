"""Whether a network is right as often as it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnkit.figures.canvas import new_figure, save


def draw_reliability(
    bins: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = ""
) -> None:
    """Draws a reliability diagram (Guo et al. 2017, Fig. 1), as a PNG.

    Above, for the images of each bin of confidence: the part that was answered right, as a bar,
    and the mean confidence, as a line; a network that is right as often as it says has every bar
    end at its line. Below, how many images are in each bin.

    Args:
        bins: `low`, `high`, `images`, `confidence` and `accuracy` of each, as the results of an
            evaluation keep them; the last two are None without images.
        path: Where the picture goes.
        title: What stands above it.

    Raises:
        UsageError: If matplotlib is not installed.
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
    figure.tight_layout()
    save(figure, path, dpi=110)

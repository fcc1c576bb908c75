"""Pictures of results. Nothing below this module draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.visualize import Filters, Projection
from cnnkit.writing import written_aside


def draw_projection(image: np.ndarray, result: Projection, path: str | Path) -> None:
    """Draws an image beside the projection of one of its units, as a PNG.

    Grey is zero; all three channels share one scale, so that the sign and the colour stay true.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: What `cnnkit.visualize.deconvnet` returned for it.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    figure = _figure(7, 3.8)
    left, right = figure.subplots(1, 2)
    left.imshow(np.clip(image / 255, 0, 1))
    left.set_title("image")
    largest = float(np.abs(result.projection).max())
    right.imshow(0.5 + result.projection / (2 * largest) if largest else image * 0 + 0.5)
    right.set_title(f"{result.rule}, {result.layer} unit {result.unit}")
    for axes in (left, right):
        axes.set_axis_off()
    scale = f"grey is 0, black and white are ∓{largest:.2g}"
    caption = f"activation {result.activation:.3g}{result.where} · {scale}"
    figure.text(0.5, 0.04, caption, ha="center", fontsize=9)
    with written_aside(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=150)


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> None:
    """Draws loss and error of training runs by epoch, as a PNG.

    Dashed on the training images, solid on the held-out ones; a dotted line stands where the
    learning rate of the first run falls at once to half or less.

    Args:
        runs: Lines of metrics by the name of the run, as `cnnkit.runs.Run.metrics` gives them.
        path: Where the picture goes.

    Raises:
        UsageError: If a run has no epoch yet, or matplotlib is not installed.
    """
    for name, lines in runs.items():
        if not lines:
            raise UsageError(f"The run {name} has no epoch to draw yet")
    figure = _figure(10, 4.2)
    loss, error = figure.subplots(1, 2)
    for number, (name, lines) in enumerate(runs.items()):
        colour = f"C{number}"
        epochs = [line["epoch"] for line in lines]
        for prefix, style in (("", "--"), ("val_", "-")):
            label = name if prefix else None
            options = {"color": colour, "linestyle": style, "label": label}
            if len(epochs) == 1:
                options["marker"] = "o"
            loss.plot(epochs, [line[f"{prefix}loss"] for line in lines], **options)
            wrong = [100 * (1 - line[f"{prefix}accuracy"]) for line in lines]
            error.plot(epochs, wrong, **options)
    first = next(iter(runs.values()))
    for before, after in pairwise(first):
        if after["learning_rate"] <= before["learning_rate"] / 2:
            for axes in (loss, error):
                axes.axvline(after["epoch"] - 0.5, color="0.6", linestyle=":", linewidth=1)
    loss.set_ylabel("loss")
    error.set_ylabel("error (%)")
    for axes in (loss, error):
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)
    error.legend(fontsize=8, title="held out solid, training dashed", title_fontsize=8)
    figure.tight_layout()
    with written_aside(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=150)


def draw_filters(found: Filters, path: str | Path, *, columns: int = 16) -> None:
    """Draws kernels as a grid, as a PNG (Krizhevsky et al. 2012, Fig. 3).

    Grey is zero, and every kernel has a scale of its own, so that its shape is seen. Dead kernels
    are framed in blue, dominating ones in red; a gap parts the towers.

    Args:
        found: What `cnnkit.visualize.filters` returned.
        path: Where the picture goes.
        columns: Kernels in a row.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    count, height, width = found.kernels.shape[:3]
    rows = -(-count // found.towers // columns)
    # One narrow row in the grid is the gap between two towers.
    ratios = ([1.0] * rows + [0.3]) * found.towers
    figure = _figure(0.55 * columns, 0.57 * sum(ratios) + 0.2)
    grid = figure.add_gridspec(
        len(ratios), columns, height_ratios=ratios, hspace=0.08, wspace=0.08,
        left=0.01, right=0.99, top=0.99, bottom=0.02,
    )  # fmt: skip
    for tower, kernels in enumerate(np.array_split(np.arange(count), found.towers)):
        for place, index in enumerate(kernels):
            row, column = divmod(place, columns)
            axes = figure.add_subplot(grid[tower * (rows + 1) + row, column])
            largest = float(np.abs(found.kernels[index]).max()) or 1.0
            axes.imshow(0.5 + found.kernels[index] / (2 * largest))
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(bool(found.dead[index] or found.dominating[index]))
            for spine in axes.spines.values():
                spine.set(color="red" if found.dominating[index] else "blue", linewidth=2)
    caption = (
        f"{found.layer}: {count} kernels of {height} x {width}, grey is 0, each on its own scale"
        f" · {int(found.dead.sum())} dead (blue), {int(found.dominating.sum())} dominating (red)"
    )
    if found.towers > 1:
        caption += f" · {found.towers} towers"
    figure.text(0.5, 0.02, caption, ha="center", fontsize=9)
    with written_aside(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=110)


def _figure(width: float, height: float):
    """Returns a matplotlib figure of its own: no window, no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "Pictures are drawn with matplotlib, which is not installed",
            hint='Install it with: pip install "cnnkit[report]"',
        ) from error
    return Figure(figsize=(width, height))

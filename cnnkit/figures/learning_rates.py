"""Figure of a learning-rate sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from cnnkit.errors import UsageError
from cnnkit.figures.canvas import TEXT, PictureOptions, new_figure, save_figure


def draw_learning_rate_sweep(
    rates: Sequence[float],
    losses: Sequence[float],
    chosen: float,
    path: str | Path,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw the loss of each step of a sweep over its learning rate, and the rate to train with.

    Args:
        rates: Learning rate of each step, rising.
        losses: Loss of each step.
        chosen: The learning rate to mark.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `rates` and `losses` differ in length, `path` exists or cannot be written,
            or matplotlib is not installed.
    """
    if len(rates) != len(losses) or len(rates) == 0:
        raise UsageError(
            "`losses` must have a number for each of `rates`",
            received=f"{len(losses)} losses, {len(rates)} rates",
        )
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.plot(rates, losses, marker=".", linewidth=1)
    axes.axvline(chosen, color="C1", linestyle="--", label=f"chosen: {chosen:g}")
    axes.set_xscale("log")
    # Texts of pictures are no formulas, which the powers of ten would be.
    axes.xaxis.set_major_formatter("{x:g}")
    # A loss that explodes would hide the others.
    axes.set_ylim(0, 1.1 * min(max(losses), 4 * losses[0] + min(losses)))
    axes.set_xlabel("learning rate", fontsize=TEXT)
    axes.set_ylabel("loss", fontsize=TEXT)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.set_layout_engine("constrained")
    save_figure(figure, path, **picture)

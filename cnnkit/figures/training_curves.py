"""Figure of loss and error of training runs by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

from cnnkit.errors import UsageError
from cnnkit.figures.canvas import TEXT, PictureOptions, new_figure, plain_name, save_figure


def draw_training_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: str | Path,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw loss and error of training runs by epoch.

    Dashed on the training images, solid on the held-out images. A dotted line is drawn where the
    learning rate of the first run falls to half or less at once.

    Args:
        runs: Lines of metrics by the name of the run, from `cnnkit.run_folder.RunFolder.metrics`.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If a run has not finished an epoch, `path` exists or cannot be written,
            or matplotlib is not installed.
    """
    for name, lines in runs.items():
        if not lines:
            raise UsageError(f"Run {name} has no epoch to draw yet")
    figure = new_figure(10, 4.2)
    loss, error = figure.subplots(1, 2)
    for number, (name, lines) in enumerate(runs.items()):
        color = f"C{number}"
        epochs = [line["epoch"] for line in lines]
        for prefix, style in (("", "--"), ("val_", "-")):
            label = plain_name(name) if prefix else None
            options = {"color": color, "linestyle": style, "label": label}
            if len(epochs) == 1:
                options["marker"] = "o"
            loss.plot(epochs, [line[f"{prefix}loss"] for line in lines], **options)
            errors = [100 * (1 - line[f"{prefix}accuracy"]) for line in lines]
            error.plot(epochs, errors, **options)
    first = next(iter(runs.values()))
    for before, after in pairwise(first):
        if after["learning_rate"] <= before["learning_rate"] / 2:
            for axes in (loss, error):
                axes.axvline(after["epoch"] - 0.5, color="0.6", linestyle=":", linewidth=1)
    loss.set_ylabel("loss", fontsize=TEXT)
    error.set_ylabel("error (%)", fontsize=TEXT)
    for axes in (loss, error):
        axes.set_xlabel("epoch", fontsize=TEXT)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)
    # Below both panels, because names of runs are paths and may be wider than a panel.
    figure.set_layout_engine("constrained")
    figure.legend(
        *error.get_legend_handles_labels(),
        loc="outside lower center",
        fontsize=10,
        title="held out solid, training dashed",
        title_fontsize=10,
    )
    save_figure(figure, path, **picture)

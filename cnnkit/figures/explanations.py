"""Figure of the explanations that a model server returned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import center_on_gray, hide_axes, new_figure, save_figure

if TYPE_CHECKING:
    from cnnkit.client import Explanation


def draw_explanations(explanations: Sequence[tuple[str, Explanation]], path: str | Path) -> None:
    """Draw each image beside the projection of its unit.

    Gray is zero; each projection has a scale of its own, shared by its three channels.

    Args:
        explanations: Names of the images and the results of `cnnkit.client.Client.explain` for
            them, at least one. Where the server does not return the image, its place is empty.
        path: PNG file to write.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    figure = new_figure(6.4, 3.2 * len(explanations) + 0.4)
    below = 0.4 / (3.2 * len(explanations) + 0.4)
    rows = figure.subplots(len(explanations), 2, squeeze=False)
    for (left, right), (name, one) in zip(rows, explanations, strict=True):
        left.set_title(_short(Path(name).name), fontsize=10)
        if one.image is not None:
            left.imshow(np.clip(one.image / 255, 0, 1))
        right.imshow(center_on_gray(one.projection))
        right.set_title(_title(one), fontsize=10)
        hide_axes((left, right))
    figure.subplots_adjust(left=0.02, right=0.98, top=1 - below, bottom=below, wspace=0.04)
    caption = "the deconvnet's projections; gray is 0, each on its own scale"
    figure.text(0.5, below / 4, caption, ha="center", fontsize=9)
    save_figure(figure, path, dpi=110)


def _title(one: Explanation) -> str:
    if one.label is not None:
        score = "" if one.score is None else f" {one.score:.4f}"
        return f"{_short(one.label)}{score}"
    unit = one.outputs.get("unit")
    if unit is None:
        return "projection"
    activation = one.outputs.get("activation")
    suffix = "" if activation is None else f", activation {float(np.ravel(activation)[0]):.3g}"
    return f"unit {int(np.ravel(unit)[0])}{suffix}"


def _short(text: str) -> str:
    # matplotlib would read a dollar sign as the start of a formula.
    text = text.replace("$", r"\$")
    return text if len(text) <= 36 else f"{text[:17]}…{text[-18:]}"

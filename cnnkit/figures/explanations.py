"""What a model server saw in images, beside the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import center_on_gray, new_figure, save_figure

if TYPE_CHECKING:
    from cnnkit.client import Explanation


def draw_explanations(seen: Sequence[tuple[str, Explanation]], path: str | Path) -> None:
    """Draws each image beside what in it made the unit fire, as a PNG.

    Gray is zero; each projection has a scale of its own, shared by its three channels.

    Args:
        seen: Names of the images and what `cnnkit.client.Client.explain` returned for them; one at
            least. Where the server does not show what the network saw, that place stays empty.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    figure = new_figure(6.4, 3.2 * len(seen) + 0.4)
    below = 0.4 / (3.2 * len(seen) + 0.4)
    rows = figure.subplots(len(seen), 2, squeeze=False)
    for (left, right), (name, one) in zip(rows, seen, strict=True):
        left.set_title(_short(Path(name).name), fontsize=10)
        if one.image is not None:
            left.imshow(np.clip(one.image / 255, 0, 1))
        right.imshow(center_on_gray(one.projection))
        right.set_title(_title(one), fontsize=10)
        for axes in (left, right):
            axes.set_axis_off()
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
    how = "" if activation is None else f", activation {float(np.ravel(activation)[0]):.3g}"
    return f"unit {int(np.ravel(unit)[0])}{how}"


def _short(text: str) -> str:
    # A dollar would begin a formula.
    text = text.replace("$", r"\$")
    return text if len(text) <= 36 else f"{text[:17]}…{text[-18:]}"

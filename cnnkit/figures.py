"""Pictures of results. Nothing below this module draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.runs import written_aside
from cnnkit.visualize import Projection


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

"""What every picture shares: a canvas without a window, gray for zero, a file that is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnnkit._files import staged_file
from cnnkit.errors import UsageError


def new_figure(width: float, height: float):
    """Returns a matplotlib figure of its own: no window, no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "Pictures are drawn with matplotlib, which is not installed",
            hint='Install it with: pip install "cnnkit[report]"',
        ) from error
    return Figure(figsize=(width, height))


def save_figure(figure, path: str | Path, *, dpi: int) -> None:
    """Writes a figure as a PNG, whole or not at all."""
    with staged_file(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=dpi)


def center_on_gray(values: np.ndarray, *, cut: float = 0.0) -> np.ndarray:
    """Returns values in 0..1 with zero at 0.5: sign and color stay true.

    The part `cut` of what is not zero, its largest, ends up black or white.
    """
    strengths = np.abs(values[values != 0])
    if not strengths.size:
        return np.full_like(values, 0.5)
    return np.clip(0.5 + values / (2 * np.quantile(strengths, 1 - cut)), 0, 1)

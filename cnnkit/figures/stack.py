"""The way up through a network and the way down beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.figures.canvas import about_grey, new_figure, save

if TYPE_CHECKING:
    from cnnkit.visualize import Step

# What a step did to a map, and what it does to the signal that comes back.
UP = {"filter": "filtered", "rectify": "rectified", "pool": "pooled", "normalize": "normalized"}
DOWN = {
    "filter": "by the transposed filters of",
    "rectify": "rectified below",
    "pool": "unpooled by the switches of",
    "normalize": "passed through",
}


def draw_stack(steps: Sequence[Step], signal: np.ndarray, path: str | Path) -> None:
    """Draws the way up through a network and the way down beside it, as a PNG.

    This is Zeiler & Fergus 2013, Fig. 1, with what really happens: on the right what the layers
    make of the image, bottom to top; on the left what comes back, top to bottom. Of every map the
    part is shown that the signal reaches, and of its channels the one where it is strongest. Red
    dots are the switches. Dense layers above are not drawn.

    Args:
        steps: What `cnnkit.visualize.climb` returned for one image, RGB in 0..255.
        signal: Where the way down begins, of the shape of the last step's `above`.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed, or nothing of the signal comes back.
    """
    rows, channel = [], 0
    for step, before in zip(steps[::-1], [*steps[-2::-1], None], strict=True):
        signal = step.down(signal, "deconvnet")
        if step.does == "filter" and signal.ndim == 4:
            # Down to the next filters, the maps keep their numbers.
            channel = int(np.abs(signal[0]).max(axis=(0, 1)).argmax())
        # Shifting and padding of the image are no steps of the paper's; a single place is no map.
        is_map = signal.ndim == 4 and np.count_nonzero(signal) > 1
        if before is None or (before.does in UP and is_map):
            rows.append((step, before, channel, signal[0]))
    if not signal.any():
        raise UsageError("Nothing of the signal comes back: there is nothing to draw")
    figure = new_figure(5.4, 2.5 * len(rows))
    for (left, right), (step, before, channel, down) in zip(
        figure.subplots(len(rows), 2, squeeze=False), rows, strict=True
    ):
        lit = np.argwhere(np.abs(down).max(axis=-1))
        part = tuple(slice(low, high + 1) for low, high in zip(lit.min(0), lit.max(0), strict=True))
        up = step.below[0]
        if before is None:
            right.set_title("image", fontsize=9)
            left.set_title("projection, not rectified", fontsize=9)
            up = np.clip(up / 255, 0, 1)
        else:
            up, down = up[..., channel], down[..., channel]
            right.set_title(f"{before.layer} {UP[before.does]}, map {channel}", fontsize=9)
            left.set_title(f"{DOWN[step.does]} {step.layer}", fontsize=9)
            if step.switches is not None:
                places = step.switches.places[0, ..., channel]
                y, x = np.divmod(places, step.switches.below[2])
                for axes in (left, right):
                    axes.plot(x - part[1].start, y - part[0].start, "r.", markersize=4)
        right.imshow(up[part], cmap="gray")
        left.imshow(about_grey(down[part]), cmap="gray", vmin=0, vmax=1)
        for axes in (left, right):
            height, width = up[part].shape[:2]
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    figure.subplots_adjust(left=0.03, right=0.97, top=0.96, bottom=0.02, wspace=0.08, hspace=0.2)
    figure.suptitle("the way down                            the way up", y=0.995, fontsize=11)
    save(figure, path, dpi=70)

"""Projections of units beside what they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnkit.figures.canvas import center_on_gray, new_figure, save_figure

if TYPE_CHECKING:
    from cnnkit.visualize import Projection
from typing import TYPE_CHECKING

from cnnkit.errors import UsageError

if TYPE_CHECKING:
    from cnnkit.visualize import LayerwiseStep


def draw_projection(image: np.ndarray, result: Projection, path: str | Path) -> None:
    """Draws an image beside the projection of one of its units, as a PNG.

    Gray is zero; all three channels share one scale, so that the sign and the color stay true.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: What `cnnkit.visualize.deconvnet.project` returned for it.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    figure = new_figure(7, 3.8)
    left, right = figure.subplots(1, 2)
    left.imshow(np.clip(image / 255, 0, 1))
    left.set_title("image")
    largest = float(np.abs(result.projection).max())
    right.imshow(center_on_gray(result.projection))
    right.set_title(f"{result.rule}, {result.layer} unit {result.unit}")
    for axes in (left, right):
        axes.set_axis_off()
    scale = f"gray is 0, black and white are ∓{largest:.2g}"
    caption = f"activation {result.activation:.3g}{result.position_text} · {scale}"
    figure.text(0.5, 0.04, caption, ha="center", fontsize=9)
    save_figure(figure, path, dpi=150)


def draw_rules(image: np.ndarray, rows: Sequence[Sequence[Projection]], path: str | Path) -> None:
    """Draws what each unit saw, and its projections by several rules beside it, as a PNG.

    Every picture shows the unit's receptive field. Gray is zero, each projection has a scale of its
    own.

    Args:
        image: (h, w, 3) RGB in 0..255.
        rows: For every unit its projections, one a rule, the rules in the same order.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    columns = 1 + len(rows[0])
    figure = new_figure(2.2 * columns, 2.5 * len(rows) + 0.4)
    for axes, results in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        seen = results[0].box.slices
        axes[0].imshow(np.clip(image[seen] / 255, 0, 1))
        axes[0].set_title(f"{results[0].layer} unit {results[0].unit}", fontsize=9)
        for one, result in zip(axes[1:], results, strict=True):
            one.imshow(center_on_gray(result.projection[seen]))
            one.set_title(result.rule, fontsize=9)
        for one in axes:
            one.set_axis_off()
    caption = "receptive fields; gray is 0, each projection on its own scale"
    figure.subplots_adjust(left=0.02, right=0.98, top=0.95, bottom=0.05, wspace=0.06, hspace=0.16)
    figure.text(0.5, 0.01, caption, ha="center", fontsize=9)
    save_figure(figure, path, dpi=70)


# What a step did to a map, and what it does to the signal that comes back.
UP = {"filter": "filtered", "rectify": "rectified", "pool": "pooled", "normalize": "normalized"}
DOWN = {
    "filter": "by the transposed filters of",
    "rectify": "rectified below",
    "pool": "unpooled by the switches of",
    "normalize": "passed through",
}


def draw_layerwise(steps: Sequence[LayerwiseStep], signal: np.ndarray, path: str | Path) -> None:
    """Draws the way up through a network and the way down beside it, as a PNG.

    This is Zeiler & Fergus 2013, Fig. 1, with what really happens: on the right what the layers
    make of the image, bottom to top; on the left what comes back, top to bottom. Of every map the
    part is shown that the signal reaches, and of its channels the one where it is strongest. Red
    dots are the switches. Dense layers above are not drawn.

    Args:
        steps: What `cnnkit.visualize.forward_steps` returned for one image, RGB in 0..255.
        signal: Where the way down begins, of the shape of the last step's `above`.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed, or nothing of the signal comes back.
    """
    rows, channel = [], 0
    for step, before in zip(steps[::-1], [*steps[-2::-1], None], strict=True):
        signal = step.backward(signal, "deconvnet")
        if step.kind == "filter" and signal.ndim == 4:
            # Down to the next filters, the maps keep their numbers.
            channel = int(np.abs(signal[0]).max(axis=(0, 1)).argmax())
        # Shifting and padding of the image are no steps of the paper's; a single place is no map.
        is_map = signal.ndim == 4 and np.count_nonzero(signal) > 1
        if before is None or (before.kind in UP and is_map):
            rows.append((step, before, channel, signal[0]))
    if not signal.any():
        raise UsageError("Nothing of the signal comes back: there is nothing to draw")
    figure = new_figure(5.4, 2.5 * len(rows))
    for (left, right), (step, before, channel, down) in zip(
        figure.subplots(len(rows), 2, squeeze=False), rows, strict=True
    ):
        lit = np.argwhere(np.abs(down).max(axis=-1))
        part = tuple(slice(low, high + 1) for low, high in zip(lit.min(0), lit.max(0), strict=True))
        up = step.input[0]
        if before is None:
            right.set_title("image", fontsize=9)
            left.set_title("projection, not rectified", fontsize=9)
            up = np.clip(up / 255, 0, 1)
        else:
            up, down = up[..., channel], down[..., channel]
            right.set_title(f"{before.layer} {UP[before.kind]}, map {channel}", fontsize=9)
            left.set_title(f"{DOWN[step.kind]} {step.layer}", fontsize=9)
            if step.switches is not None:
                places = step.switches.indices[0, ..., channel]
                y, x = np.divmod(places, step.switches.input_shape[2])
                for axes in (left, right):
                    axes.plot(x - part[1].start, y - part[0].start, "r.", markersize=4)
        right.imshow(up[part], cmap="gray")
        left.imshow(center_on_gray(down[part]), cmap="gray", vmin=0, vmax=1)
        for axes in (left, right):
            height, width = up[part].shape[:2]
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    figure.subplots_adjust(left=0.03, right=0.97, top=0.96, bottom=0.02, wspace=0.08, hspace=0.2)
    figure.suptitle("the way down                            the way up", y=0.995, fontsize=11)
    save_figure(figure, path, dpi=70)

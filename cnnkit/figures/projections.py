"""Figures of projections: of one unit, by several rules, layer by layer, and from a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from cnnkit._pixels import as_rgb, center_on_gray
from cnnkit.errors import UsageError
from cnnkit.figures.canvas import (
    TEXT,
    TITLE,
    PictureOptions,
    add_caption,
    hide_axes,
    new_figure,
    save_figure,
    text_height,
    wrap_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnkit.client import Explanation
    from cnnkit.visualize import LayerwiseStep, Projection


def draw_projection(
    image: np.ndarray, result: Projection, path: str | Path, **picture: Unpack[PictureOptions]
) -> None:
    """Draw an image beside the projection of one of its units.

    Gray is zero; all three channels share one scale, which keeps sign and color.

    Args:
        image: (h, w, 3) RGB in 0..255.
        result: Result of `cnnkit.visualize.deconvnet` for the image.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    figure = new_figure(7, 4)
    left, right = figure.subplots(1, 2)
    left.imshow(as_rgb(image))
    left.set_title("image", fontsize=TITLE)
    largest = float(np.abs(result.projection).max())
    right.imshow(center_on_gray(result.projection))
    right.set_title(f"{result.rule}, {result.layer} unit {result.unit}", fontsize=TITLE)
    hide_axes((left, right))
    scale = f"gray is 0, black and white are ∓{largest:.2g}"
    caption = f"activation {result.activation:.3g}{result.position_text} · {scale}"
    caption = wrap_text(caption, 6.6)
    below = text_height(caption) / 4
    figure.subplots_adjust(left=0.02, right=0.98, top=0.91, bottom=below, wspace=0.04)
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


def draw_rules(
    image: np.ndarray,
    rows: Sequence[Sequence[Projection]],
    path: str | Path,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw the image patch of each unit and its projections by several rules.

    Every picture shows the unit's receptive field. Gray is zero; each projection has a scale of its
    own.

    Args:
        image: (h, w, 3) RGB in 0..255.
        rows: For every unit its projections, one for each rule, the rules in the same order.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    columns = 1 + len(rows[0])
    caption = wrap_text(
        "receptive fields; gray is 0, each projection on its own scale", 2.2 * columns
    )
    below = text_height(caption)
    height = 2.55 * len(rows) + below
    figure = new_figure(2.2 * columns, height)
    for axes, results in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        field = results[0].box.slices
        axes[0].imshow(as_rgb(image[field]))
        title = f"{results[0].layer} unit {results[0].unit}: {results[0].activation:.3g}"
        axes[0].set_title(title, fontsize=TITLE)
        for one, result in zip(axes[1:], results, strict=True):
            one.imshow(center_on_gray(result.projection[field]))
            one.set_title(result.rule, fontsize=TITLE)
        hide_axes(axes)
    figure.subplots_adjust(
        left=0.01,
        right=0.99,
        top=1 - 0.35 / height,
        bottom=below / height,
        wspace=0.04,
        hspace=0.16,
    )
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


# What a step did to a map in the forward pass, and what it does to the signal in the backward pass.
FORWARD_TEXT = {
    "filter": "filtered",
    "rectify": "rectified",
    "pool": "pooled",
    "normalize": "normalized",
}
BACKWARD_TEXT = {
    "filter": "by the transposed filters of",
    "rectify": "rectified below",
    "pool": "unpooled by the switches of",
    "normalize": "passed through",
}


def draw_layerwise(
    steps: Sequence[LayerwiseStep],
    signal: np.ndarray,
    path: str | Path,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw the forward pass through a network and the deconvnet's backward pass beside it.

    This is Zeiler & Fergus 2013, Fig. 1, with real maps: on the right the outputs of the layers,
    bottom to top; on the left the signal on its way back, top to bottom. Of every map only the part
    that the signal reaches is drawn, and of its channels the one where the signal is strongest. Red
    dots are the switches. Dense layers are not drawn.

    Args:
        steps: Result of `cnnkit.visualize.forward_steps` for one image, RGB in 0..255.
        signal: Signal at the output of the last step, of the shape of its `output`.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, matplotlib is not installed, or the
            signal that comes back is zero.
    """
    rows = _layerwise_rows(steps, signal)
    height = 2.7 * len(rows) + 0.5
    figure = new_figure(5.6, height)
    for (left, right), row in zip(figure.subplots(len(rows), 2, squeeze=False), rows, strict=True):
        _draw_layerwise_row(left, right, row)
    figure.subplots_adjust(
        left=0.02, right=0.98, top=1 - 0.75 / height, bottom=0.1 / height, wspace=0.08, hspace=0.14
    )
    for axes, title in zip(figure.axes, ("the way down ↓", "the way up ↑"), strict=False):
        place = axes.get_position()
        figure.text(
            (place.x0 + place.x1) / 2, 1 - 0.12 / height, title, ha="center", va="top",
            fontsize=TITLE + 2, fontweight="bold",
        )  # fmt: skip
    save_figure(figure, path, **picture)


@dataclass(frozen=True)
class _LayerwiseRow:
    """One row of the figure.

    Attributes:
        step: The step whose input is drawn.
        before: The step below, whose output is that input; None for the image.
        channel: The channel that is drawn.
        signal: (h, w, c), the signal at the input of the step.
    """

    step: LayerwiseStep
    before: LayerwiseStep | None
    channel: int
    signal: np.ndarray


def _layerwise_rows(steps: Sequence[LayerwiseStep], signal: np.ndarray) -> list[_LayerwiseRow]:
    """Take the signal back through the steps, and return the rows, top to bottom."""
    rows, channel = [], 0
    for step, before in zip(steps[::-1], [*steps[-2::-1], None], strict=True):
        signal = step.backward(signal, "deconvnet")
        if step.kind == "filter" and signal.ndim == 4:
            # Down to the next filters, the maps keep their numbers.
            channel = int(np.abs(signal[0]).max(axis=(0, 1)).argmax())
        # Shifting and padding the image are not steps of the paper. A single position is not a map.
        is_map = signal.ndim == 4 and np.count_nonzero(signal) > 1
        if before is None or (before.kind in FORWARD_TEXT and is_map):
            rows.append(_LayerwiseRow(step, before, channel, signal[0]))
    if not signal.any():
        raise UsageError("`signal` must reach the image: the signal that comes back is zero")
    return rows


def _draw_layerwise_row(left: Axes, right: Axes, row: _LayerwiseRow) -> None:
    nonzero = np.argwhere(np.abs(row.signal).max(axis=-1))
    low, high = nonzero.min(0), nonzero.max(0) + 1
    part = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    if row.before is None:
        right.set_title("image", fontsize=TEXT)
        left.set_title("projection, not rectified", fontsize=TEXT)
        forward, backward = as_rgb(row.step.input[0]), row.signal
    else:
        forward, backward = row.step.input[0][..., row.channel], row.signal[..., row.channel]
        text = FORWARD_TEXT[row.before.kind]
        right.set_title(f"{row.before.layer} {text}, map {row.channel}", fontsize=TEXT)
        way = BACKWARD_TEXT.get(row.step.kind, "through")
        left.set_title(f"{way} {row.step.layer}", fontsize=TEXT)
        if row.step.switches is not None:
            indices = row.step.switches.indices[0, ..., row.channel]
            y, x = np.divmod(indices, row.step.switches.input_shape[2])
            for axes in (left, right):
                axes.plot(x - low[1], y - low[0], "r.", markersize=4)
    right.imshow(forward[part], cmap="gray")
    left.imshow(center_on_gray(backward[part]), cmap="gray", vmin=0, vmax=1)
    height, width = forward[part].shape[:2]
    for axes in (left, right):
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])


def draw_explanations(
    explanations: Sequence[tuple[str, Explanation]],
    path: str | Path,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw each image beside the projection of its unit.

    Gray is zero; each projection has a scale of its own, shared by its three channels.

    Args:
        explanations: Names of the images and the results of `cnnkit.client.Client.explain` for
            them, at least one. Where the server does not return the image, its place is empty.
        path: File to write: .png, .svg or .pdf.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    figure = new_figure(6.8, 3.5 * len(explanations) + 0.45)
    below = 0.45 / (3.5 * len(explanations) + 0.45)
    rows = figure.subplots(len(explanations), 2, squeeze=False)
    for (left, right), (name, one) in zip(rows, explanations, strict=True):
        left.set_title(_short(Path(name).name), fontsize=TEXT)
        if one.image is not None:
            left.imshow(as_rgb(one.image))
        right.imshow(center_on_gray(one.projection))
        right.set_title(_explanation_title(one), fontsize=TEXT)
        hide_axes((left, right))
    figure.subplots_adjust(left=0.02, right=0.98, top=1 - below, bottom=below, wspace=0.04)
    add_caption(figure, "the deconvnet's projections; gray is 0, each on its own scale")
    save_figure(figure, path, **picture)


def _explanation_title(one: Explanation) -> str:
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
    return text if len(text) <= 34 else f"{text[:16]}…{text[-17:]}"

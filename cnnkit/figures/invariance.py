"""Figures of invariance to transformations and of the correspondence of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from cnnkit._pixels import as_rgb
from cnnkit.figures.canvas import (
    TEXT,
    TICKS,
    TITLE,
    PictureOptions,
    add_caption,
    lay_out,
    new_figure,
    plain_name,
    save_figure,
    text_height,
    tile_pictures,
    wrap_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnkit.visualize import Box, Correspondence, Invariance

# Inches of an image, and of the panel of bars.
SIDE, BARS = 1.3, 5.0
# Names in a line of the legend.
LEGEND_COLUMNS = 3
# Label of the horizontal axis, by transformation.
AXIS_LABELS = {
    "translation": "vertical translation (pixels)",
    "scale": "scale (factor)",
    "rotation": "rotation (degrees)",
}


def draw_invariance(
    images: np.ndarray,
    rows: Sequence[Invariance],
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    fill: float = 128,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw a row for every transformation (Zeiler & Fergus 2013, Fig. 5).

    From left to right: the images at the least, the middle and the largest amount; the distance of
    their features at each layer, divided by the length of the features of the image as it is, so
    that layers can be compared; the probability of their class.

    Args:
        images: (n, h, w, 3) RGB in 0..255.
        rows: Results of `cnnkit.visualize.invariance` for the images, one for a transformation.
        path: File to write: .png, .svg or .pdf.
        names: Name of each image; None numbers them.
        fill: Value of the pixels from outside the image, in 0..255.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    names = [f"image {i}" for i in range(len(images))] if names is None else names
    columns = 2 + len(rows[0].layers)
    width = 3.4 * columns
    caption = wrap_text(
        "relative distance: Euclidean distance from the features of the image as it is, divided by"
        f" their length · what comes in from outside is {fill:g}, of 0 to 255",
        width - 0.4,
    )
    legend = 0.3 * -(-len(names) // LEGEND_COLUMNS)
    below = text_height(caption) + legend
    height = 3.0 * len(rows) + below
    figure = new_figure(width, height)
    relative = [_relative_distances(row) for row in rows]
    highest = 1.05 * max(float(one.max(initial=0)) for one in relative) or 1.0
    for line, row, distances in zip(
        figure.subplots(len(rows), columns, squeeze=False), rows, relative, strict=True
    ):
        amounts = _three_amounts(row)
        line[0].imshow(_transformed_images(images, row.transform, amounts, fill))
        line[0].set_axis_off()
        title = f"{row.transform}: {', '.join(f'{one:g}' for one in amounts)}"
        line[0].set_title(title, fontsize=TITLE)
        curves = [*distances, row.probabilities]
        titles = [
            *(f"{layer}: relative distance" for layer in row.layers),
            "probability of the class",
        ]
        for axes, values, title in zip(line[1:], curves, titles, strict=True):
            for name, curve in zip(names, values, strict=True):
                axes.plot(row.amounts, curve, label=plain_name(name), linewidth=1.8)
            axes.set_title(title, fontsize=TITLE)
            axes.set_xlabel(AXIS_LABELS[row.transform], fontsize=TEXT)
            axes.tick_params(labelsize=TICKS)
            axes.set_ylim(0, highest)
            axes.grid(alpha=0.3)
        line[-1].set_ylim(0, 1.02)
    lay_out(figure, rect=(0, below / height, 1, 1))
    figure.legend(
        *figure.axes[columns - 1].get_legend_handles_labels(),
        loc="lower center",
        bbox_to_anchor=(0.5, text_height(caption) / height),
        ncols=min(len(names), LEGEND_COLUMNS),
        fontsize=TEXT,
        frameon=False,
        borderpad=0,
    )
    add_caption(figure, caption)
    save_figure(figure, path, **picture)


def _relative_distances(row: Invariance) -> np.ndarray:
    """Return (layers, n, m): distances divided by the lengths of features, 0 for features of 0."""
    lengths = np.asarray(row.norms)[..., None]
    distances = np.asarray(row.distances)
    safe = np.where(lengths > 0, lengths, 1)
    return np.asarray(np.where(lengths > 0, distances / safe, 0))


def _three_amounts(row: Invariance) -> tuple[float, float, float]:
    """Return the first, the middle and the last amount of a transformation."""
    return row.amounts[0], row.amounts[len(row.amounts) // 2], row.amounts[-1]


def _transformed_images(
    images: np.ndarray, transform: str, amounts: Sequence[float], fill: float
) -> np.ndarray:
    """Return a mosaic in 0..1: a row for each image, a column for each amount."""
    # Imported here, because drawing alone needs no TensorFlow.
    from cnnkit.visualize import transform_image

    pictures = [
        as_rgb(transform_image(image, transform, one, fill)) for image in images for one in amounts
    ]
    return tile_pictures(pictures, len(amounts))


def draw_correspondence(
    images: np.ndarray,
    boxes: Mapping[str, Sequence[Box]],
    found: Mapping[str, Correspondence],
    path: str | Path,
    *,
    fill: float = 128,
    **picture: Unpack[PictureOptions],
) -> None:
    """Draw the images with each part hidden, and the change Delta of every part.

    Zeiler & Fergus 2013, Fig. 8 and Table 1.

    Args:
        images: (n, h, w, 3) RGB in 0..255.
        boxes: For each part its box in every image.
        found: Results of `cnnkit.visualize.correspondence` for the images, by layer.
        path: File to write: .png, .svg or .pdf.
        fill: Value that hides a part, in 0..255.
        **picture: `dpi` and `overwrite`, as in `cnnkit.figures.PictureOptions`.

    Raises:
        UsageError: If `path` exists or cannot be written, or matplotlib is not installed.
    """
    pictures = SIDE * len(images) + 0.5
    height = max(SIDE * (1 + len(boxes)) + 0.2, 4.0)
    figure = new_figure(pictures + BARS, height)
    [[left, right]] = figure.subfigures(1, 2, squeeze=False, width_ratios=(pictures, BARS))
    grid = left.subplots(1 + len(boxes), len(images), squeeze=False)
    for line, part in zip(grid, ("whole", *boxes), strict=True):
        line[0].set_ylabel(plain_name(part), fontsize=TEXT)
        for i, axes in enumerate(line):
            image = images[i].copy()
            if part in boxes:
                image[boxes[part][i].slices] = fill
            axes.imshow(as_rgb(image))
            axes.set(xticks=[], yticks=[])
    left.subplots_adjust(
        left=0.4 / pictures, right=0.99, top=0.98, bottom=0.02, wspace=0.05, hspace=0.05
    )
    _draw_delta_bars(right.subplots(), found)
    right.subplots_adjust(left=0.17, right=0.97, top=1 - 0.7 / height, bottom=0.5 / height)
    save_figure(figure, path, **picture)


def _draw_delta_bars(axes: Axes, found: Mapping[str, Correspondence]) -> None:
    """Draw the mean and deviation of Delta, a bar for each part and layer."""
    width = 0.8 / len(found)
    for number, one in enumerate(found.values()):
        at = np.arange(len(one.parts)) + (number - (len(found) - 1) / 2) * width
        axes.bar(
            at,
            [one.mean(part) for part in one.parts],
            width,
            yerr=[one.std(part) for part in one.parts],
            capsize=3,
            label=plain_name(one.layer),
        )
    parts = next(iter(found.values())).parts
    axes.set_xticks(range(len(parts)), list(map(plain_name, parts)), fontsize=TEXT)
    axes.tick_params(axis="y", labelsize=TICKS)
    axes.set_ylabel("Δ, part of the units", fontsize=TEXT)
    title = "units whose change differs in sign\n(mean and deviation over pairs; less: closer)"
    axes.set_title(title, fontsize=TEXT)
    # The margin above the bars is for the legend.
    axes.margins(y=0.25)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=TEXT, ncols=len(found), loc="upper right")

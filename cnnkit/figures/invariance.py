"""Figures of invariance to transformations and of the correspondence of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from cnnkit._pixels import as_rgb
from cnnkit.figures.canvas import PictureOptions, lay_out, new_figure, plain_name, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnkit.visualize import Box, Correspondence, Invariance

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
    their features at each layer; the probability of their class.

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
    figure = new_figure(3.1 * columns, 2.5 * len(rows) + 0.5)
    for line, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        amounts = _three_amounts(row)
        line[0].imshow(_transformed_images(images, row.transform, amounts, fill))
        line[0].set_axis_off()
        line[0].set_title(f"{row.transform} {', '.join(f'{one:g}' for one in amounts)}", fontsize=8)
        curves = [*row.distances, row.probabilities]
        titles = [*(f"{layer}: distance" for layer in row.layers), "probability of the class"]
        for axes, values, title in zip(line[1:], curves, titles, strict=True):
            for name, curve in zip(names, values, strict=True):
                axes.plot(row.amounts, curve, label=plain_name(name), linewidth=1.2)
            axes.set_title(title, fontsize=8)
            axes.set_xlabel(AXIS_LABELS[row.transform], fontsize=7)
            axes.tick_params(labelsize=7)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
        line[-1].set_ylim(0, 1.02)
    figure.axes[columns - 1].legend(fontsize=7)
    lay_out(figure, rect=(0, 0.03, 1, 1))
    caption = (
        "Euclidean distance from the features of the image as it is ·"
        f" what comes in from outside is {fill:g}, of 0 to 255"
    )
    figure.text(0.5, 0.008, caption, ha="center", fontsize=8)
    save_figure(figure, path, **picture)


def _three_amounts(row: Invariance) -> tuple[float, float, float]:
    """Return the first, the middle and the last amount of a transformation."""
    return row.amounts[0], row.amounts[len(row.amounts) // 2], row.amounts[-1]


def _transformed_images(
    images: np.ndarray, transform: str, amounts: Sequence[float], fill: float
) -> np.ndarray:
    """Return a mosaic in 0..1: a row for each image, a column for each amount."""
    # Imported here, because drawing alone needs no TensorFlow.
    from cnnkit.visualize import transform_image

    lines = [
        np.concatenate([transform_image(image, transform, one, fill) for one in amounts], axis=1)
        for image in images
    ]
    return as_rgb(np.concatenate(lines))


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
    figure = new_figure(1.1 * len(images) + 4.2, 1.15 * (1 + len(boxes)) + 0.5)
    [[left, right]] = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.1 * len(images), 4.2))
    grid = left.subplots(1 + len(boxes), len(images), squeeze=False)
    for line, part in zip(grid, ("whole", *boxes), strict=True):
        line[0].set_ylabel(part, fontsize=8)
        for i, axes in enumerate(line):
            image = images[i].copy()
            if part in boxes:
                image[boxes[part][i].slices] = fill
            axes.imshow(as_rgb(image))
            axes.set(xticks=[], yticks=[])
    left.subplots_adjust(left=0.08, right=0.99, top=0.98, bottom=0.06, wspace=0.05, hspace=0.05)
    _draw_delta_bars(right.subplots(), found)
    right.subplots_adjust(left=0.12, right=0.97, top=0.86, bottom=0.14)
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
            capsize=2,
            label=plain_name(one.layer),
        )
    parts = next(iter(found.values())).parts
    axes.set_xticks(range(len(parts)), list(map(plain_name, parts)), fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title("units whose change differs in sign\nmean and deviation over pairs", fontsize=8)
    # The margin above the bars is for the legend.
    axes.margins(y=0.25)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, ncols=len(found), loc="upper right")

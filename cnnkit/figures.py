"""Pictures of results. Nothing below this module draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.visualize import Filters, Projection, Step, Top
from cnnkit.writing import written_aside

# What a step did to a map, and what it does to the signal that comes back.
UP = {"filter": "filtered", "rectify": "rectified", "pool": "pooled", "normalize": "normalized"}
DOWN = {
    "filter": "by the transposed filters of",
    "rectify": "rectified below",
    "pool": "unpooled by the switches of",
    "normalize": "passed through",
}


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
    right.imshow(_about_grey(result.projection))
    right.set_title(f"{result.rule}, {result.layer} unit {result.unit}")
    for axes in (left, right):
        axes.set_axis_off()
    scale = f"grey is 0, black and white are ∓{largest:.2g}"
    caption = f"activation {result.activation:.3g}{result.where} · {scale}"
    figure.text(0.5, 0.04, caption, ha="center", fontsize=9)
    with written_aside(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=150)


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path) -> None:
    """Draws loss and error of training runs by epoch, as a PNG.

    Dashed on the training images, solid on the held-out ones; a dotted line stands where the
    learning rate of the first run falls at once to half or less.

    Args:
        runs: Lines of metrics by the name of the run, as `cnnkit.runs.Run.metrics` gives them.
        path: Where the picture goes.

    Raises:
        UsageError: If a run has no epoch yet, or matplotlib is not installed.
    """
    for name, lines in runs.items():
        if not lines:
            raise UsageError(f"The run {name} has no epoch to draw yet")
    figure = _figure(10, 4.2)
    loss, error = figure.subplots(1, 2)
    for number, (name, lines) in enumerate(runs.items()):
        colour = f"C{number}"
        epochs = [line["epoch"] for line in lines]
        for prefix, style in (("", "--"), ("val_", "-")):
            label = name if prefix else None
            options = {"color": colour, "linestyle": style, "label": label}
            if len(epochs) == 1:
                options["marker"] = "o"
            loss.plot(epochs, [line[f"{prefix}loss"] for line in lines], **options)
            wrong = [100 * (1 - line[f"{prefix}accuracy"]) for line in lines]
            error.plot(epochs, wrong, **options)
    first = next(iter(runs.values()))
    for before, after in pairwise(first):
        if after["learning_rate"] <= before["learning_rate"] / 2:
            for axes in (loss, error):
                axes.axvline(after["epoch"] - 0.5, color="0.6", linestyle=":", linewidth=1)
    loss.set_ylabel("loss")
    error.set_ylabel("error (%)")
    for axes in (loss, error):
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)
    error.legend(fontsize=8, title="held out solid, training dashed", title_fontsize=8)
    figure.tight_layout()
    with written_aside(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=150)


def draw_filters(found: Filters, path: str | Path, *, columns: int = 16) -> None:
    """Draws kernels as a grid, as a PNG (Krizhevsky et al. 2012, Fig. 3).

    Grey is zero, and every kernel has a scale of its own, so that its shape is seen. Dead kernels
    are framed in blue, dominating ones in red; a gap parts the towers.

    Args:
        found: What `cnnkit.visualize.filters` returned.
        path: Where the picture goes.
        columns: Kernels in a row.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    count, height, width = found.kernels.shape[:3]
    rows = -(-count // found.towers // columns)
    # One narrow row in the grid is the gap between two towers.
    ratios = ([1.0] * rows + [0.3]) * found.towers
    figure = _figure(0.55 * columns, 0.57 * sum(ratios) + 0.2)
    grid = figure.add_gridspec(
        len(ratios), columns, height_ratios=ratios, hspace=0.08, wspace=0.08,
        left=0.01, right=0.99, top=0.99, bottom=0.02,
    )  # fmt: skip
    for tower, kernels in enumerate(np.array_split(np.arange(count), found.towers)):
        for place, index in enumerate(kernels):
            row, column = divmod(place, columns)
            axes = figure.add_subplot(grid[tower * (rows + 1) + row, column])
            largest = float(np.abs(found.kernels[index]).max()) or 1.0
            axes.imshow(0.5 + found.kernels[index] / (2 * largest))
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(bool(found.dead[index] or found.dominating[index]))
            for spine in axes.spines.values():
                spine.set(color="red" if found.dominating[index] else "blue", linewidth=2)
    caption = (
        f"{found.layer}: {count} kernels of {height} x {width}, grey is 0, each on its own scale"
        f" · {int(found.dead.sum())} dead (blue), {int(found.dominating.sum())} dominating (red)"
    )
    if found.towers > 1:
        caption += f" · {found.towers} towers"
    figure.text(0.5, 0.02, caption, ha="center", fontsize=9)
    with written_aside(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=110)


def draw_rules(image: np.ndarray, rows: Sequence[Sequence[Projection]], path: str | Path) -> None:
    """Draws what each unit saw, and its projections by several rules beside it, as a PNG.

    Every picture shows the unit's receptive field. Grey is zero, each projection has a scale of its
    own.

    Args:
        image: (h, w, 3) RGB in 0..255.
        rows: For every unit its projections, one a rule, the rules in the same order.
        path: Where the picture goes.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    columns = 1 + len(rows[0])
    figure = _figure(2.2 * columns, 2.5 * len(rows) + 0.4)
    for axes, results in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        seen = results[0].box.slices
        axes[0].imshow(np.clip(image[seen] / 255, 0, 1))
        axes[0].set_title(f"{results[0].layer} unit {results[0].unit}", fontsize=9)
        for one, result in zip(axes[1:], results, strict=True):
            one.imshow(_about_grey(result.projection[seen]))
            one.set_title(result.rule, fontsize=9)
        for one in axes:
            one.set_axis_off()
    caption = "receptive fields; grey is 0, each projection on its own scale"
    figure.subplots_adjust(left=0.02, right=0.98, top=0.95, bottom=0.05, wspace=0.06, hspace=0.16)
    figure.text(0.5, 0.01, caption, ha="center", fontsize=9)
    with written_aside(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=70)


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
    figure = _figure(5.4, 2.5 * len(rows))
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
        left.imshow(_about_grey(down[part]), cmap="gray", vmin=0, vmax=1)
        for axes in (left, right):
            height, width = up[part].shape[:2]
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    figure.subplots_adjust(left=0.03, right=0.97, top=0.96, bottom=0.02, wspace=0.08, hspace=0.2)
    figure.suptitle("the way down                            the way up", y=0.995, fontsize=11)
    with written_aside(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=70)


def draw_top9(tops: Sequence[Top], path: str | Path, *, columns: int = 2) -> None:
    """Draws units' strongest projections beside what they saw, as a PNG.

    As Zeiler & Fergus 2013, Fig. 2: for each unit a square of projections, and to the right of it
    the same square of image patches. Grey is zero; every projection has a scale of its own, which
    the largest of its values leave, so that the others are seen.

    Args:
        tops: What `cnnkit.visualize.top9` returned for a layer.
        path: Where the picture goes.
        columns: Units in a row.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    columns = min(columns, len(tops))
    rows = -(-len(tops) // columns)
    figure = _figure(4.6 * columns, 2.45 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, top in zip(grid.flat, tops, strict=False):
        title = f"{top.layer} unit {top.unit}"
        if not top.projections:
            axes.set_title(f"{title}: never fires", fontsize=8)
            continue
        axes.set_title(f"{title}: {top.projections[0].activation:.3g}", fontsize=8)
        pictures = [
            _about_grey(_placed(result, patch.shape), cut=0.005)
            for result, patch in zip(top.projections, top.patches, strict=True)
        ]
        seen = [np.clip(patch / 255, 0, 1) for patch in top.patches]
        axes.imshow(np.concatenate([_square(pictures), _square(seen)], axis=1))
    caption = (
        "projections and patches, strongest first · the number is the strongest activation"
        " · grey is 0, each on its own scale, which 0.5 % of its values leave"
    )
    figure.subplots_adjust(left=0.01, right=0.99, top=0.96, bottom=0.06, wspace=0.05, hspace=0.15)
    figure.text(0.5, 0.01, caption, ha="center", fontsize=8)
    with written_aside(Path(path)) as aside:
        figure.savefig(aside, format="png", dpi=70)


def _placed(result: Projection, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the projection of a receptive field, zero beyond the border of the image."""
    placed = np.zeros(shape, np.float32)
    box, wide = result.box, result.unclipped
    rows = slice(box.top - wide.top, box.bottom - wide.top)
    columns = slice(box.left - wide.left, box.right - wide.left)
    placed[rows, columns] = result.projection[box.slices]
    return placed


def _square(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns pictures of one size in a square, white between them and where one is missing."""
    side = int(np.ceil(np.sqrt(len(pictures))))
    height, width = (length + max(1, length // 20) for length in pictures[0].shape[:2])
    square = np.ones((side * height, side * width, 3), np.float32)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, side)
        rows = slice(row * height, row * height + picture.shape[0])
        square[rows, column * width : column * width + picture.shape[1]] = picture
    return square


def _about_grey(values: np.ndarray, *, cut: float = 0.0) -> np.ndarray:
    """Returns values in 0..1 with zero at 0.5: sign and colour stay true.

    The part `cut` of what is not zero, its largest, ends up black or white.
    """
    strengths = np.abs(values[values != 0])
    if not strengths.size:
        return np.full_like(values, 0.5)
    return np.clip(0.5 + values / (2 * np.quantile(strengths, 1 - cut)), 0, 1)


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

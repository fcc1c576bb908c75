"""The first page of a site: the architecture, the layers, and how the site was made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import keras

from cnnkit._html.elements import Content, element, html_table
from cnnkit.errors import CnnkitError
from cnnkit.models.summary import LayerSummary, summarize_network
from cnnkit.reports.microscope.page import plural, render
from cnnkit.reports.microscope.survey import LayerSurvey
from cnnkit.reports.microscope.unit_page import SiteNames

# Pixels of the drawing: of the largest map, between blocks, and of the texts around.
TALLEST, GAP, ABOVE, BELOW = 110, 14, 8, 46
# Kinds of layers that are drawn.
DRAWN = ("Conv2D", "GroupedConv2D", "Dense", "MaxPooling2D", "CeilMaxPooling2D", "AveragePooling2D")
# Characters of a name under its block.
MAX_NAME = 14


def render_overview(
    model: keras.Model,
    layers: Sequence[LayerSurvey],
    folders: Mapping[str, str],
    names: SiteNames,
    facts: Sequence[tuple[str, str]],
    of_run: Sequence[tuple[str, str]],
    images: int,
) -> str:
    """Return the first page of a site.

    Args:
        model: The network.
        layers: What was found for its layers.
        folders: Names of their folders.
        names: Names of the network, its classes and images.
        facts: How the site was made.
        of_run: The results of the training, if the network is that of a run.
        images: How many images have pages.
    """
    try:
        summary = summarize_network(model)
    except CnnkitError:
        summary = []
    units = sum(len(one.units) for one in layers)
    lead = element(
        "p",
        f"What excites {plural(units, 'unit')} of {plural(len(layers), 'layer')} most among"
        f" {plural(len(names.images), 'image')}, and what the deconvnet (Zeiler & Fergus 2013)"
        " finds there. Search for a class to find its units.",
    )
    content: list[Content] = [lead]
    if summary:
        content.append(element("div", _drawing(summary, folders), class_="wide", tabindex=0))
    content += [element("h2", "Layers"), _table(layers, folders, summary)]
    words = element("a", "Classes", href="classes/index.html")
    content.append(element("p", words, ": the units that each excites, and what it is taken for."))
    if images:
        words = element("a", "Images", href="images/index.html")
        content.append(element("p", words, ": what they are taken for, and what speaks for it."))
    if of_run:
        content += [element("h2", "Training"), html_table(of_run)]
    content += [element("h2", "How it was made"), html_table(facts)]
    return render(names.network, [], *content, depth=0)


def _table(
    layers: Sequence[LayerSurvey], folders: Mapping[str, str], summary: Sequence[LayerSummary]
) -> Content:
    known = {one.name: one for one in summary}
    rows = []
    for layer in layers:
        one, field = known.get(layer.name), layer.field
        dead = sum(bool(layer.found.dead[unit]) for unit in layer.units)
        twins = sum(int(layer.twins[unit]) >= 0 for unit in layer.units)
        rows.append(
            (
                element("a", layer.name, href=f"{folders[layer.name]}/index.html"),
                _sides(one.output_shape) if one else "",
                "{} x {}".format(*field.size) if field is not None and field.stride[0] else "all",
                f"{one.parameters:,}" if one else "",
                "" if one is None or one.multiply_adds is None else f"{one.multiply_adds:,}",
                str(len(layer.units)),
                str(dead),
                str(twins),
            )
        )
    header = ("layer", "output", "receptive field", "parameters", "multiply-adds", "units shown",
              "dead", "near-duplicates")  # fmt: skip
    return element("div", html_table(rows, header, class_="numbers"), class_="wide", tabindex=0)


def _sides(shape: Sequence[int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in shape)


def _drawing(summary: Sequence[LayerSummary], folders: Mapping[str, str]) -> Content:
    """Return the layers as blocks from left to right: their maps' height, and width by channels."""
    drawn = [one for one in summary if one.kind in DRAWN or one.name in folders]
    largest = max(
        (one.output_shape[0] or 1 for one in drawn if len(one.output_shape) == 3), default=1
    )
    x, blocks = 4.0, []
    for one in drawn:
        is_map = len(one.output_shape) == 3
        height = TALLEST * math.sqrt((one.output_shape[0] or largest) / largest) if is_map else 80.0
        width = 5 * math.log2(1 + (one.output_shape[-1] or 1)) if is_map else 9.0
        if one.kind not in ("Conv2D", "GroupedConv2D", "Dense") and one.name not in folders:
            width = 5.0
        cell = max(width, 6.6 * max(min(len(one.name), MAX_NAME), len(_short(one)))) + GAP
        middle, top = x + cell / 2, ABOVE + (TALLEST - height) / 2
        name = one.name if len(one.name) <= MAX_NAME else f"{one.name[: MAX_NAME - 1]}\u2026"
        parts = [
            element(
                "rect", x=f"{middle - width / 2:.1f}", y=f"{top:.1f}", width=f"{width:.1f}",
                height=f"{height:.1f}", rx=2, class_="block",
            ),
            element("text", name, x=f"{middle:.1f}", y=ABOVE + TALLEST + 16, text_anchor="middle"),
            element(
                "text", _short(one), x=f"{middle:.1f}", y=ABOVE + TALLEST + 31,
                text_anchor="middle", class_="size",
            ),
        ]  # fmt: skip
        if one.name in folders:
            title = element("title", f"{one.name}: {one.kind}, {_sides(one.output_shape)}")
            parts = [element("a", title, *parts, href=f"{folders[one.name]}/index.html")]
        blocks += parts
        x += cell
    return element(
        "svg", *blocks, width=f"{x + 4:.0f}", height=ABOVE + TALLEST + BELOW,
        viewBox=f"0 0 {x + 4:.0f} {ABOVE + TALLEST + BELOW}", role="group",
        aria_label="the layers as blocks: height is the side of their maps, width their channels",
    )  # fmt: skip


def _short(one: LayerSummary) -> str:
    if len(one.output_shape) != 3:
        return str(one.output_shape[-1])
    side = one.output_shape[0]
    return f"{'any' if side is None else side}\u00b2\u00d7{one.output_shape[-1]}"

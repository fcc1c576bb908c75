"""The page of one unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnkit._html.elements import Content, element, folded, html_table
from cnnkit.reports.microscope.page import picture, plural, render
from cnnkit.reports.microscope.survey import LayerSurvey

# Classes that are listed.
CLASSES = 6
# Width and height of the histogram.
CHART = 380, 90
# Backward rules besides the deconvnet's.
RULE_WORDS = {
    "guided": "guided back-propagation (Springenberg et al. 2015)",
    "gradient": "the gradient (Simonyan et al. 2014)",
}


@dataclass(frozen=True)
class SiteNames:
    """Names that the pages of a site share.

    Attributes:
        network: Name of the network.
        classes: Names of the classes of the images.
        images: Names of the images.
        labels: (n,) int, the class of each image.
    """

    network: str
    classes: Sequence[str]
    images: Sequence[str]
    labels: np.ndarray


def unit_file(unit: int) -> str:
    """Return the name of a unit's page without its ending."""
    return f"unit-{unit:04d}"


def class_file(number: int) -> str:
    """Return the name of a class's page without its ending."""
    return f"class-{number:04d}"


def render_unit(
    layer: LayerSurvey,
    unit: int,
    names: SiteNames,
    pictures: tuple[str, str | None] | None,
    rules: Mapping[str, str] | None = None,
) -> str:
    """Return the page of a unit.

    Args:
        layer: What was found for its layer.
        unit: The unit.
        names: Names of the network, its classes and images.
        pictures: Names of the unit's files of pictures; None for a unit that never fires.
        rules: By backward rule, the names of the files of projections by other rules.
    """
    title = f"{layer.name}, unit {unit}"
    path = [
        element("a", names.network, href="../index.html"),
        element("a", layer.name, href="index.html", rel="up"),
    ]
    content: list[Content] = [_neighbors(layer, unit), element("p", *_facts(layer, unit))]
    if pictures is not None:
        content += _pictures(layer, unit, *pictures)
        for rule, file in (rules or {}).items():
            words = f"{RULE_WORDS[rule]}, in the same order: gray is 0"
            shown = picture(file, f"{layer.name} unit {unit}: {words}", "rule")
            content.append(folded(f"{rule} rule", shown, element("small", words)))
        content += [element("h2", "Classes that excite it"), _classes(layer, unit, names)]
        content += [element("h2", "Activations"), *_histogram(layer, unit)]
        content += [element("h2", "The images"), _images(layer, unit, names)]
    return render(title, path, *content, depth=1)


def _neighbors(layer: LayerSurvey, unit: int) -> Content:
    place = list(layer.units).index(unit)
    links: list[Content] = []
    for step, relation, arrow in ((-1, "prev", "\u2190 unit {}"), (1, "next", "unit {} \u2192")):
        if 0 <= place + step < len(layer.units):
            other = layer.units[place + step]
            text = arrow.format(other)
            links += [element("a", text, href=f"{unit_file(other)}.html", rel=relation), " "]
    keys = element("small", "keys: \u2190 \u2192 turn pages, u goes up, / searches", class_="keys")
    return element("p", *links, keys)


def _facts(layer: LayerSurvey, unit: int) -> list[Content]:
    statistics, largest = layer.statistics, layer.found.values[unit, 0]
    if layer.found.dead[unit]:
        mark = element("span", "Dead", class_="mark")
        return [mark, f": it fired for none of {plural(statistics.images, 'image')}."]
    facts: list[Content] = [
        f"It fired for {statistics.firing_rate[unit]:.1%} of {plural(statistics.images, 'image')},"
        f" with {largest:.4g} at most. Its class selectivity is"
        f" {statistics.class_selectivity[unit]:.2f} of 1."
    ]
    if layer.field is not None and layer.field.stride[0]:
        facts.append(" Its receptive field has {} x {} pixels.".format(*layer.field.size))
    if (twin := int(layer.twins[unit])) >= 0:
        name = f"unit {twin}"
        link = element("a", name, href=f"{unit_file(twin)}.html") if twin in layer.units else name
        facts += [" ", element("span", "Near-duplicate", class_="mark"), " of ", link, "."]
    return facts


def _pictures(layer: LayerSurvey, unit: int, file: str, where: str | None) -> list[Content]:
    count = int(np.count_nonzero(layer.found.values[unit] > 0))
    images = plural(count, "image")
    shown = [
        ("patches", f"{images} that excite it most, strongest first, row by row"),
        ("projections", "what the deconvnet (Zeiler & Fergus 2013) finds in each: gray is 0"),
    ]
    figures = [
        element(
            "figure",
            picture(file, f"{layer.name} unit {unit}: {words}", f"half {kind}"),
            element("figcaption", words),
        )
        for kind, words in shown
    ]
    content: list[Content] = [element("div", *figures, class_="pair")]
    if where is not None:
        words = f"the receptive fields of the strongest positions in the {images}"
        content += [element("h2", "Where"), picture(where, words, "where")]
    return content


def _classes(layer: LayerSurvey, unit: int, names: SiteNames) -> Content:
    means = layer.statistics.class_means[:, unit]
    chosen = layer.top_classes(unit, CLASSES)
    largest = float(means.max()) or 1.0
    rows = [
        (
            element("a", names.classes[one], href=f"../classes/{class_file(one)}.html"),
            element("meter", value=f"{means[one] / largest:.3f}", aria_label="relative size"),
            f"{means[one]:.4g}",
        )
        for one in chosen
    ]
    return html_table(rows, ("class", "", "mean activation"))


def _histogram(layer: LayerSurvey, unit: int) -> list[Content]:
    counts, edges = layer.statistics.histogram(unit)
    (width, height), bins = CHART, len(counts)
    # The first bin holds most images; on a scale of logarithms the others are visible.
    scale = height / np.log1p(counts.max())
    bars = [
        element(
            "rect", x=f"{i * width / bins:.1f}", y=f"{height - size:.1f}", class_="bar",
            width=f"{width / bins - 1:.1f}", height=f"{size:.1f}",
        )
        for i, size in enumerate(np.log1p(counts) * scale)
        if size > 0
    ]  # fmt: skip
    ends = [
        element("text", "0", x=0, y=height + 14),
        element("text", f"{edges[-1]:.3g}", x=width, y=height + 14, text_anchor="end"),
    ]
    line = element("line", x1=0, x2=width, y1=height, y2=height, class_="axis")
    sampled = plural(len(layer.statistics.samples), "image")
    description = (
        f"Histogram of the unit's largest activation in {sampled}: {counts[0]:,} in the lowest of"
        f" {bins} bins, {counts[-1]:,} in the highest"
    )
    chart = element(
        "svg", line, *bars, *ends, viewBox=f"0 0 {width} {height + 18}", width=width,
        role="img", aria_label=description, class_="chart",
    )  # fmt: skip
    caption = f"Largest activation in each of {sampled}; heights are logarithms of the counts."
    return [element("div", chart, class_="wide", tabindex=0), element("small", caption)]


def _images(layer: LayerSurvey, unit: int, names: SiteNames) -> Content:
    rows = []
    for rank, value in enumerate(layer.found.values[unit].tolist()):
        if value <= 0:
            break
        index = int(layer.found.images[unit, rank])
        position = layer.found.position(unit, rank)
        rows.append(
            (
                str(rank + 1),
                f"{value:.4g}",
                names.classes[names.labels[index]],
                names.images[index],
                "{}, {}".format(*position) if position else "",
            )
        )
    header = ("", "activation", "class", "image", "row, column")
    return element("div", html_table(rows, header), class_="wide", tabindex=0)

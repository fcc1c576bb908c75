"""The page of a layer: its units as cards; and the index that the search reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnkit._files import json_text
from cnnkit._html.elements import Content, element
from cnnkit.errors import escape_controls
from cnnkit.reports.microscope.page import picture, plural, render
from cnnkit.reports.microscope.survey import LayerSurvey
from cnnkit.reports.microscope.unit_page import SiteNames, class_file, unit_file

# Data attribute of a card, and whether small values come first.
ORDERS = (
    ("strongest activation", "activation -1"),
    ("number", "unit 1"),
    ("fires most rarely", "rate 1"),
    ("fires most often", "rate -1"),
    ("class selectivity", "selectivity -1"),
)
VIEWS = (("patches", "patches"), ("projections", "projections"), ("kernels", "kernels"))
# Classes that the card of a unit names.
CARD_CLASSES = 2


def render_layer(
    layer: LayerSurvey,
    names: SiteNames,
    pictures: Mapping[int, str],
    kernels: Mapping[int, str],
    others: Sequence[Content],
) -> str:
    """Return the page of a layer.

    Args:
        layer: What was found for it.
        names: Names of the network, its classes and images.
        pictures: By unit, the name of the file of its pictures; dead units have none.
        kernels: By unit, the name of the file of its kernel, in the first convolution.
        others: Links to the pages of the layers before and after it.
    """
    dead = sum(bool(layer.found.dead[unit]) for unit in layer.units)
    twins = sum(int(layer.twins[unit]) >= 0 for unit in layer.units)
    facts = f"{plural(len(layer.units), 'unit')}, {dead} dead, {twins} with a near-duplicate"
    if layer.field is not None and layer.field.stride[0]:
        facts += "; receptive field {} x {} pixels".format(*layer.field.size)
    views = [
        element("label", element("input", type="radio", name="view", value=value, **checked), text)
        for value, text in VIEWS
        if value != "kernels" or kernels
        for checked in [{"checked": "checked"} if value == "patches" else {}]
    ]
    orders = [element("option", text, value=value) for text, value in ORDERS]
    controls = element(
        "div",
        element("fieldset", element("legend", "show"), *views),
        element("label", "order ", element("select", *orders, id="order")),
        class_="controls",
    )
    ranked = sorted(layer.units, key=lambda unit: -float(layer.found.values[unit, 0]))
    cards = [_card(layer, unit, names, pictures, kernels) for unit in ranked]
    path = [element("a", names.network, href="../index.html", rel="up")]
    grid = element("ul", *cards, class_="units", id="units", data_view="patches")
    return render(
        layer.name, path, element("p", *others), element("p", f"{facts}."), controls, grid, depth=1
    )


def _card(
    layer: LayerSurvey,
    unit: int,
    names: SiteNames,
    pictures: Mapping[int, str],
    kernels: Mapping[int, str],
) -> Content:
    shown: list[Content] = []
    if unit in pictures:
        words = f"{layer.name} unit {unit}: nine images and projections"
        shown.append(picture(pictures[unit], words, "half patches"))
    else:
        shown.append(element("div", "never fires", class_="none half"))
    if unit in kernels:
        shown.append(picture(kernels[unit], f"kernel of unit {unit}", "kernel"))
    value = float(layer.found.values[unit, 0])
    lines: list[Content] = [element("b", str(unit))]
    if mark := _mark(layer, unit):
        lines += [" ", element("span", mark, class_="mark")]
    if unit in pictures:
        classes = [names.classes[one] for one in layer.top_classes(unit, CARD_CLASSES)]
        lines += [element("small", f"{value:.3g} \u00b7 {', '.join(classes)}")]
    return element(
        "li",
        element("a", *shown, *lines, href=f"{unit_file(unit)}.html"),
        data_unit=unit,
        data_activation=f"{value:.6g}" if np.isfinite(value) else 0,
        data_rate=f"{layer.statistics.firing_rate[unit]:.5f}",
        data_selectivity=f"{layer.statistics.class_selectivity[unit]:.4f}",
    )


def _mark(layer: LayerSurvey, unit: int) -> str:
    if layer.found.dead[unit]:
        return "dead"
    twin = int(layer.twins[unit])
    return f"like {twin}" if twin >= 0 else ""


def index_script(
    layers: Sequence[LayerSurvey],
    folders: Mapping[str, str],
    names: SiteNames,
    pictures: Mapping[str, Mapping[int, str]],
) -> str:
    """Return the script that holds the index of the search: layers, classes and units.

    Each entry has its address, title, words, the address of its picture, and whether that is made
    of single pixels. Units that prefer one class most come first.
    """
    entries: list[list[Any]] = [
        [f"{folders[one.name]}/index.html", one.name, plural(len(one.units), "unit"), "", False]
        for one in layers
    ]
    counts = np.bincount(names.labels, minlength=len(names.classes))
    entries += [
        [
            f"classes/{class_file(number)}.html",
            escape_controls(names.classes[number]),
            f"class, {plural(int(counts[number]), 'image')}",
            "",
            False,
        ]
        for number in np.flatnonzero(counts).tolist()
    ]
    ranked = sorted(
        (-float(one.statistics.class_selectivity[unit]), number, unit)
        for number, one in enumerate(layers)
        for unit in one.units
    )
    for _, number, unit in ranked:
        layer = layers[number]
        folder = folders[layer.name]
        file = pictures[layer.name].get(unit)
        words = ", ".join(names.classes[one] for one in layer.top_classes(unit, CARD_CLASSES))
        entries.append(
            [
                f"{folder}/{unit_file(unit)}.html",
                f"{layer.name} unit {unit}",
                escape_controls(words) or _mark(layer, unit),
                f"{folder}/{file}" if file else "",
                bool(file) and str(file).endswith(".png"),
            ]
        )
    return f"window.cnnkitUnits = {json_text(entries)};\n"

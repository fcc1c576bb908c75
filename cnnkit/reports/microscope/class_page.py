"""The pages of the classes: the units that a class excites, its mistakes, and its confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cnnkit._html.elements import Content, element, html_table
from cnnkit.reports.microscope.page import picture, plural, render
from cnnkit.reports.microscope.survey import LayerSurvey
from cnnkit.reports.microscope.unit_page import SiteNames, class_file, unit_file

CLASSES = "classes"
# Units of a layer, mistakes, and confused classes that are shown.
UNITS, MISTAKES, CONFUSED = 6, 12, 8


def find_mistakes(names: SiteNames, predicted: np.ndarray | None, number: int) -> np.ndarray:
    """Return images of a class that were answered wrong, at most `MISTAKES`, (n,) int."""
    if predicted is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero((names.labels == number) & (predicted != number))[:MISTAKES]


def render_class(
    number: int,
    layers: Sequence[LayerSurvey],
    folders: Mapping[str, str],
    names: SiteNames,
    pictures: Mapping[str, Mapping[int, str]],
    predicted: np.ndarray | None,
    thumbnails: Mapping[int, str],
) -> str:
    """Return the page of a class.

    Args:
        number: The class.
        layers: What was found for the layers.
        folders: Names of the layers' folders.
        names: Names of the network, its classes and images.
        pictures: By layer and unit, the names of the files of pictures.
        predicted: (n,) int, the class that each image was taken for; None if that is not known.
        thumbnails: By image, the names of the files of mistakes.
    """
    path: list[Content] = [
        element("a", names.network, href="../index.html"),
        element("a", CLASSES, href="index.html", rel="up"),
    ]
    present = _present(names)
    place = present.index(number)
    links: list[Content] = []
    for step, relation, arrow in ((-1, "prev", "\u2190 {}"), (1, "next", "{} \u2192")):
        if 0 <= place + step < len(present):
            other = present[place + step]
            href = f"{class_file(other)}.html"
            links += [
                element("a", arrow.format(names.classes[other]), href=href, rel=relation), " ",
            ]  # fmt: skip
    content: list[Content] = [element("p", *links), element("p", _facts(number, names, predicted))]
    content.append(element("h2", "Units that it excites most"))
    for layer in reversed(layers):
        content += _units(number, layer, folders[layer.name], pictures[layer.name])
    if predicted is not None:
        content += [element("h2", "Confusions"), *_confusions(number, names, predicted)]
        if thumbnails:
            content += [element("h2", "Mistakes"), _mistakes(names, predicted, thumbnails)]
    return render(names.classes[number], path, *content, depth=1)


def render_classes(
    layers: Sequence[LayerSurvey],
    folders: Mapping[str, str],
    names: SiteNames,
    predicted: np.ndarray | None,
) -> str:
    """Return the list of the classes.

    Args:
        layers: What was found for the layers.
        folders: Names of the layers' folders.
        names: Names of the network, its classes and images.
        predicted: (n,) int, the class that each image was taken for; None if that is not known.
    """
    rows, last = [], layers[-1]
    folder = f"../{folders[last.name]}"
    for number in _present(names):
        mine = names.labels == number
        link = element("a", names.classes[number], href=f"{class_file(number)}.html")
        row: list[Content] = [link, f"{int(mine.sum()):,}"]
        if predicted is not None:
            row.append(f"{(predicted[mine] != number).mean():.1%}")
        row += [
            element("a", f"{last.name} unit {unit}", href=f"{folder}/{unit_file(unit)}.html")
            for unit in _preferring(number, last)[:1]
        ] or [""]
        rows.append(row)
    header = ["class", "images", *(["error"] if predicted is not None else []), "its unit"]
    table = element("div", html_table(rows, header), class_="wide", tabindex=0)
    path = [element("a", names.network, href="../index.html", rel="up")]
    return render(CLASSES, path, table, depth=1)


def _present(names: SiteNames) -> list[int]:
    return [int(one) for one in np.unique(names.labels)]


def _facts(number: int, names: SiteNames, predicted: np.ndarray | None) -> str:
    mine = names.labels == number
    text = plural(int(mine.sum()), "image")
    if predicted is None:
        return f"{text} of this class were searched."
    wrong = int((predicted[mine] != number).sum())
    share = f"{wrong:,} ({wrong / mine.sum():.1%})"
    return f"{text} of this class were searched; {share} taken for another."


def _preferring(number: int, layer: LayerSurvey) -> list[int]:
    """Return the shown units whose largest mean activation is that of a class, best first."""
    means, selectivity = layer.statistics.class_means, layer.statistics.class_selectivity
    units = [one for one in layer.units if means[number, one] > 0]
    units = [one for one in units if means[:, one].argmax() == number]
    return sorted(units, key=lambda one: -float(selectivity[one]))


def _units(
    number: int, layer: LayerSurvey, folder: str, pictures: Mapping[int, str]
) -> list[Content]:
    units = _preferring(number, layer)
    if not units:
        return []
    cards = []
    for unit in units[:UNITS]:
        words = f"{layer.name} unit {unit}: nine images and projections"
        shown = [picture(f"../{folder}/{pictures[unit]}", words, "half patches")]
        selectivity = layer.statistics.class_selectivity[unit]
        text = [element("b", str(unit)), element("small", f"selectivity {selectivity:.2f}")]
        href = f"../{folder}/{unit_file(unit)}.html"
        cards.append(element("li", element("a", *shown, *text, href=href)))
    count = f"{plural(len(units), 'unit')} prefer it" if len(units) != 1 else "1 unit prefers it"
    return [element("h3", f"{layer.name}: {count}"), element("ul", *cards, class_="units")]


def _confusions(number: int, names: SiteNames, predicted: np.ndarray) -> list[Content]:
    mine = names.labels == number
    content: list[Content] = []
    for title, others in (
        ("taken for", predicted[mine & (predicted != number)]),
        ("taken for it", names.labels[~mine & (predicted == number)]),
    ):
        counts = np.bincount(others, minlength=len(names.classes))
        order = [int(one) for one in np.argsort(-counts, kind="stable")[:CONFUSED] if counts[one]]
        rows = [(_class_link(one, names), f"{counts[one]:,}") for one in order]
        content.append(
            html_table(rows, (title, "images")) if rows else element("p", f"{title}: none")
        )
    return [element("div", *content, class_="pair")]


def _class_link(number: int, names: SiteNames) -> Content:
    name = names.classes[number]
    if not (names.labels == number).any():
        return name
    return element("a", name, href=f"{class_file(number)}.html")


def _mistakes(names: SiteNames, predicted: np.ndarray, thumbnails: Mapping[int, str]) -> Content:
    cards = [
        element(
            "li",
            picture(file, f"an image taken for {names.classes[predicted[image]]}", "where"),
            element("small", names.images[image]),
            element("small", "taken for ", _class_link(int(predicted[image]), names)),
        )
        for image, file in thumbnails.items()
    ]
    return element("ul", *cards, class_="units")

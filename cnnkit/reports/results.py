"""Sections of a report about the results of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnkit._html.elements import Content, element, folded, html_table
from cnnkit.figures import draw_confusion, draw_reliability
from cnnkit.reports.drawing import draw_inside
from cnnkit.reports.page import Section

# With more classes than these, the matrix is a picture, and tables show the worst classes.
MAX_CELLS = 40
MAX_ROWS = 20
MAX_PAIRS = 10

Results = Mapping[str, Any]


def mistake_anchor(number: int) -> str:
    """Return the name of the anchor of a mistake."""
    return f"mistake-{number + 1}"


def errors_section(results: Results, matrix: np.ndarray) -> Section:
    """Return the section of errors: in all, by class, and the classes that are confused.

    Args:
        results: Results of an evaluation.
        matrix: (k, k) int, images by class and predicted class.
    """
    classes = results["classes"]
    shown = sorted(
        (one for one in classes if one["images"]), key=lambda one: one["top1_error"], reverse=True
    )
    by_class = html_table(
        [_class_row(results, one) for one in shown[:MAX_ROWS]],
        ("class", "error", "images", "most often taken for"),
        class_="classes",
    )
    title = "Errors by class, the largest first"
    if len(shown) > MAX_ROWS:
        title = f"The {MAX_ROWS} classes with the largest errors"
    content: list[Content] = [
        _confusion(results, matrix),
        element("h3", "Most frequent confusions"),
        _pairs(results, matrix),
        folded(title, by_class),
    ]
    return Section("errors", "Confusion matrix", content)


def _class_row(results: Results, one: Mapping[str, Any]) -> tuple[str, ...]:
    number = next(i for i, other in enumerate(results["classes"]) if other is one)
    pairs = [
        (images, results["classes"][predicted]["label"])
        for label, predicted, images in results["confusion"]
        if label == number != predicted
    ]
    others = ", ".join(f"{name} ({images})" for images, name in sorted(pairs, reverse=True)[:3])
    return one["label"], f"{one['top1_error']:.1%}", f"{one['images']:,}", others or "-"


def _confusion(results: Results, matrix: np.ndarray) -> Content:
    names = [one["label"] for one in results["classes"]]
    used = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1)).tolist()
    if len(used) > MAX_CELLS:
        words = f"Confusion matrix of {len(used)} classes"
        return draw_inside(draw_confusion, matrix, names, description=words, ending=".png")
    links = _first_mistakes(results)
    rows = [
        (names[label], *(_cell(matrix, label, answer, names, links) for answer in used))
        for label in used
    ]
    cells = element("tbody")
    for name, *line in rows:
        cells.append(element("tr", element("th", name), *line))
    head = element("tr", element("th"), *(element("th", names[answer]) for answer in used))
    return element(
        "div",
        element("p", "A row for each class, a column for each answer. The shade is the part of the "
                     "row; a number that can be clicked leads to one of its worst mistakes."),
        element("table", element("thead", head), cells, class_="matrix"),
        class_="wide",
    )  # fmt: skip


def _cell(
    matrix: np.ndarray,
    label: int,
    answer: int,
    names: Sequence[str],
    links: Mapping[tuple[str, str], int],
) -> Content:
    count, total = int(matrix[label, answer]), int(matrix[label].sum())
    shade = min(9, 10 * count // total) if total else 0
    text = str(count) if count else "·"
    number = links.get((names[label], names[answer]))
    if number is None or label == answer:
        return element("td", text, class_=f"s{shade}")
    anchor = element("a", text, href=f"#{mistake_anchor(number)}")
    return element("td", anchor, class_=f"s{max(shade, 1)}")


def _first_mistakes(results: Results) -> dict[tuple[str, str], int]:
    """Return the number of the worst mistake of each class and answer."""
    found: dict[tuple[str, str], int] = {}
    for number, one in enumerate(results["mistakes"]):
        found.setdefault((one["label"], one["top"][0][0]), number)
    return found


def _pairs(results: Results, matrix: np.ndarray) -> Content:
    names = [one["label"] for one in results["classes"]]
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_PAIRS]
    pairs = [divmod(int(place), len(names)) for place in order if wrong.flat[place]]
    if not pairs:
        return element("p", "No image was answered wrong.")
    links = _first_mistakes(results)
    rows: list[Sequence[Content]] = []
    for label, answer in pairs:
        number = links.get((names[label], names[answer]))
        images: Content = f"{wrong[label, answer]:,} of {matrix[label].sum():,}"
        if number is not None:
            images = element("a", str(images), href=f"#{mistake_anchor(number)}")
        rows.append((names[label], names[answer], images))
    return html_table(rows, ("class", "answer", "images"))


def calibration_section(results: Results) -> Section:
    """Return the section of the calibration, with the reliability diagram."""
    calibration = results["calibration"]
    bins = [one for one in calibration["bins"] if one["images"]]
    images = sum(one["images"] for one in bins)
    confidence = sum(one["images"] * one["confidence"] for one in bins) / images
    accuracy = sum(one["images"] * one["accuracy"] for one in bins) / images
    kind = "too confident" if confidence > accuracy else "too careful"
    words = (
        f"The network gives its answers a probability of {confidence:.1%} on average, and"
        f" {accuracy:.1%} of them are right: it is {kind} by {abs(confidence - accuracy):.1%}."
        f" The expected calibration error (Guo et al. 2017) is {calibration['error']:.1%}."
    )
    diagram = draw_inside(
        draw_reliability,
        calibration["bins"],
        description="Reliability diagram: accuracy and mean confidence in bins of confidence",
    )
    return Section("calibration", "Calibration", [element("p", words), diagram])

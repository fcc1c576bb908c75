"""The pages of images: what the network takes an image for, where it looks, and what is like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cnnkit._files import json_text
from cnnkit._html.elements import Content, DataUrl, element, html_table
from cnnkit._pixels import as_rgb, distinguishing_digits, heat, ramp
from cnnkit.errors import escape_controls, truncate
from cnnkit.models.logits import output_activation
from cnnkit.reports.microscope.page import picture, plural, render
from cnnkit.reports.microscope.pictures import write_picture
from cnnkit.reports.microscope.survey import LayerSurvey
from cnnkit.reports.microscope.unit_page import SiteNames, class_file, unit_file
from cnnkit.visualize import AttributionComparison, OcclusionMaps, compare_attributions, occlusion
from cnnkit.visualize.classifier import as_classifier
from cnnkit.visualize.occlusion.occlusion import default_square

IMAGES = "images"
METHODS = ("saliency", "gradcam")
# Rows of the probabilities, and images that are like an image.
CLASSES, NEAREST = 5, 6
# The square moves by a part of itself.
STEP = 2
# Pixels of the longer side of a picture.
SIDE = 320


@dataclass(frozen=True)
class ImageStudy:
    """What was computed for one image.

    Attributes:
        number: Index of the image.
        pixels: (h, w, c) float32 in 0..255, as the network takes it.
        probabilities: (classes,) float32.
        covered: The outputs while a square covers a place.
        compared: Saliency and Grad-CAM, with learned and with shuffled weights.
    """

    number: int
    pixels: np.ndarray
    probabilities: np.ndarray
    covered: OcclusionMaps
    compared: AttributionComparison


def study_image(model: keras.Model, number: int, pixels: np.ndarray) -> ImageStudy:
    """Compute what the page of an image shows.

    Args:
        model: The classifier.
        number: Index of the image.
        pixels: (h, w, c) float32 in 0..255, as the network takes it.
    """
    side = default_square(pixels.shape)
    covered = occlusion(model, pixels, square=side, stride=max(1, side // STEP))
    classifier = as_classifier(model)
    outputs = model(pixels[None], training=False)
    if output_activation(classifier.end.layer) is None:
        probabilities = classifier.probabilities(classifier.class_logits(outputs).numpy())
    else:
        probabilities = keras.ops.convert_to_numpy(outputs)
        if probabilities.shape[-1] != classifier.classes:
            probabilities = np.concatenate([1 - probabilities, probabilities], axis=-1)
    compared = compare_attributions(model, pixels, METHODS, covered.target)
    return ImageStudy(number, pixels, probabilities[0], covered, compared)


def image_page_file(number: int) -> str:
    """Return the name of an image's page without its ending."""
    return f"image-{number:06d}"


def write_image_pictures(folder: Path, study: ImageStudy) -> dict[str, str]:
    """Write the pictures of an image's page, and return the names of their files.

    Args:
        folder: The folder of the images.
        study: What was computed for the image.
    """
    name, shape = image_page_file(study.number), study.pixels.shape[:2]
    shown = {
        "image": as_rgb(study.pixels),
        "probability": _enlarged(_colored(study.covered.probability), shape),
        "activity": _enlarged(_colored(study.covered.activity), shape),
    }
    for place, method in enumerate(study.compared.methods):
        stages = [study.compared.maps, *study.compared.randomized_maps]
        maps = [np.abs(one[place]) for one in (stages[0], stages[-1])]
        shown[method], shown[f"{method}-shuffled"] = (heat(one) for one in maps)
    return {
        kind: write_picture(folder, f"{name}-{kind}", pixels, SIDE)
        for kind, pixels in shown.items()
    }


def _colored(values: np.ndarray) -> np.ndarray:
    """Color a map from its smallest value, black, to its largest, white; one value is gray."""
    span = float(np.ptp(values))
    if not span:
        return np.full((*values.shape, 3), 0.5)
    return ramp((values - values.min()) / span)


def _scale(values: np.ndarray, write: Callable[[float], str]) -> Content:
    """Return the colors of a map with its smallest and its largest value beside them."""
    low, high = write(float(values.min())), write(float(values.max()))
    if not np.ptp(values):
        return element("p", f"{low} everywhere", class_="scale")
    colors = element("span", class_="ramp", role="img", aria_label=f"colors from {low} to {high}")
    return element("p", low, colors, high, class_="scale")


def _enlarged(grid: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return a grid with the proportions of an image, each value a rectangle."""
    rows, columns = (
        np.arange(side) * count // side for side, count in zip(shape, grid.shape[:2], strict=True)
    )
    return grid[np.ix_(rows, columns)]


def render_image(
    study: ImageStudy,
    files: Mapping[str, str],
    names: SiteNames,
    captions: Sequence[str],
    strongest: Sequence[tuple[LayerSurvey, str, int, float]],
    nearest: Sequence[tuple[int, float, str]],
    others: Sequence[int],
    *,
    has_classes: bool,
) -> str:
    """Return the page of an image.

    Args:
        study: What was computed for it.
        files: Names of its pictures.
        names: Names of the network, the images' classes, and the images.
        captions: Names of the network's classes.
        strongest: For each layer: what was found, its folder, the strongest unit, its activation.
        nearest: Images that are like it: their indices, cosines, and files.
        others: All images that have pages.
        has_classes: Whether the network's classes are those of the images.
    """
    name, place = names.images[study.number], list(others).index(study.number)
    path: list[Content] = [
        element("a", names.network, href="../index.html"),
        element("a", IMAGES, href="index.html", rel="up"),
    ]
    links: list[Content] = []
    for step, relation, text in (
        (-1, "prev", "\u2190 image before"),
        (1, "next", "next image \u2192"),
    ):
        if 0 <= place + step < len(others):
            href = f"{image_page_file(others[place + step])}.html"
            links += [element("a", text, href=href, rel=relation), " "]
    label = names.classes[names.labels[study.number]]
    content: list[Content] = [
        element("p", *links),
        element("p", f"An image of class {label}."),
        element("h2", "Probabilities"),
        _probabilities(study, names, captions, has_classes=has_classes),
        element("h2", "Occlusion"),
        *_occlusion(study, files, captions),
        element("h2", "Saliency and Grad-CAM"),
        *_attributions(study, files, captions),
        element("h2", "The strongest unit of each layer"),
        html_table(
            [
                (
                    layer.name,
                    element("a", f"unit {unit}", href=f"../{folder}/{unit_file(unit)}.html"),
                    f"{value:.4g}",
                )
                for layer, folder, unit, value in strongest
            ],
            ("layer", "", "activation"),
        ),
    ]
    if nearest:
        layer = strongest[-1][0].name
        words = f"Cosine of the largest activations of the units of {layer}."
        content += [element("h2", "Images like it"), element("small", words)]
        content.append(
            element("ul", *(_like(one, names, others) for one in nearest), class_="units")
        )
    return render(name, path, *content, depth=1)


def _like(one: tuple[int, float, str], names: SiteNames, others: Sequence[int]) -> Content:
    number, cosine, file = one
    label = names.classes[names.labels[number]]
    shown: list[Content] = [picture(file, f"an image of class {label}", "where")]
    if number in others:
        shown = [element("a", *shown, href=f"{image_page_file(number)}.html")]
    words = [
        element("small", f"{cosine:.3f} \u00b7 {label}"),
        element("small", names.images[number]),
    ]
    return element("li", *shown, *words)


def _probabilities(
    study: ImageStudy, names: SiteNames, captions: Sequence[str], *, has_classes: bool
) -> Content:
    rows = []
    for one in np.argsort(-study.probabilities, kind="stable")[:CLASSES].tolist():
        value = float(study.probabilities[one])
        has_page = has_classes and (names.labels == one).any()
        href = f"../classes/{class_file(one)}.html"
        label = element("a", captions[one], href=href) if has_page else captions[one]
        meter = element("meter", value=f"{value:.4f}", aria_label=f"probability {value:.1%}")
        rows.append((label, meter, f"{value:.1%}"))
    return html_table(rows, ("class", "", "probability"))


def _occlusion(
    study: ImageStudy, files: Mapping[str, str], captions: Sequence[str]
) -> list[Content]:
    covered = study.covered
    target = captions[covered.target]
    places = [
        [int(covered.rows[r]), int(covered.columns[c]), round(float(value), 4), label]
        for (r, c), value in np.ndenumerate(covered.probability)
        for label in [int(covered.label[r, c])]
    ]
    data = {
        "size": list(covered.image_size),
        "square": list(covered.square),
        "target": _text(target),
        "names": {str(one): _text(captions[one]) for one in np.unique(covered.label).tolist()},
        "places": places,
    }
    lowest = int(covered.probability.argmin())
    stage = element(
        "div",
        picture(files["image"], "the image", "shown"),
        element("span", class_="square", hidden="hidden"),
        class_="stage",
        id="occlusion",
        data_places=DataUrl(json_text(data)),
    )
    slider = element(
        "input", type="range", id="place", min=0, max=len(places) - 1, value=lowest,
        aria_label="place of the square",
    )  # fmt: skip
    first = element(
        "figure", stage, slider, element("figcaption", id="covered", aria_live="polite")
    )
    percent = max(1, distinguishing_digits(100 * covered.probability))
    shown: list[tuple[str, str, np.ndarray, Callable[[float], str]]] = [
        (
            "probability", f"probability of {target} by place of the square",
            covered.probability, lambda value: f"{value:.{percent}%}",
        ),
        (
            "activity", f"activity of {covered.layer} unit {covered.unit} by place of the square",
            covered.activity, lambda value: f"{value:.4g}",
        ),
    ]  # fmt: skip
    figures = [
        element(
            "figure", picture(files[kind], words, "shown"), _scale(values, write),
            element("figcaption", words),
        )
        for kind, words, values, write in shown
    ]  # fmt: skip
    height, width = covered.square
    words = (
        f"A gray square of {height} x {width} pixels covers one of {plural(len(places), 'place')}"
        f" (Zeiler & Fergus 2013, Fig. 7). Uncovered, {target} has the probability"
        f" {covered.clean_probability:.1%}."
    )
    return [element("p", words), element("div", first, *figures, class_="three")]


def _text(name: str) -> str:
    return escape_controls(truncate(name, 100))


def _attributions(
    study: ImageStudy, files: Mapping[str, str], captions: Sequence[str]
) -> list[Content]:
    compared = study.compared
    words = (
        f"What speaks for {captions[compared.target]}; and the same after the weights were shuffled"
        " from the top down (Adebayo et al. 2018). A map that stays the same does not show what"
        " the network learned: a rank correlation near 1 is a bad sign."
    )
    content: list[Content] = [element("p", words)]
    last = compared.stages[-1]
    for place, method in enumerate(compared.methods):
        shown = [
            (files[method], f"{method}, learned weights"),
            (
                files[f"{method}-shuffled"],
                f"{method}, weights shuffled down to {last}",
            ),
        ]
        figures = [
            element("figure", picture(file, text, "shown"), element("figcaption", text))
            for file, text in shown
        ]
        rows = [
            (stage, "constant" if np.isnan(value) else f"{value:.2f}")
            for stage, value in zip(compared.stages, compared.correlations[:, place], strict=True)
        ]
        table = html_table(rows, ("shuffled down to", "rank correlation"))
        content.append(element("div", *figures, table, class_="three"))
    return content


def render_images(numbers: Sequence[int], files: Mapping[int, str], names: SiteNames) -> str:
    """Return the list of the images that have pages.

    Args:
        numbers: Their indices.
        files: By image, the name of a small picture.
        names: Names of the network, its classes and images.
    """
    cards = []
    for number in numbers:
        label = names.classes[names.labels[number]]
        shown = picture(files[number], f"an image of class {label}", "where")
        words = [element("b", label), element("small", names.images[number])]
        cards.append(
            element("li", element("a", shown, *words, href=f"{image_page_file(number)}.html"))
        )
    path = [element("a", names.network, href="../index.html", rel="up")]
    return render(IMAGES, path, element("ul", *cards, class_="units"), depth=1)

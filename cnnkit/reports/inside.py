"""Sections of a report that look inside the network: mistakes, filters, and units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from cnnkit._html.elements import Content, element, html_table
from cnnkit._pixels import as_rgb
from cnnkit.data import Augmentation, Split, batches, report_undecodable
from cnnkit.data.crops import fit_images
from cnnkit.errors import CnnkitError, UsageError
from cnnkit.figures import draw_filters, draw_top9
from cnnkit.figures.attribution import explanation_pixels, is_signed
from cnnkit.models.graph import read_nodes
from cnnkit.reports.drawing import captioned, draw_inside
from cnnkit.reports.page import Section
from cnnkit.reports.results import mistake_anchor
from cnnkit.visualize import Attribution, explain_class, filters, find_top_activations, project_top

# Images that are searched for those that activate units most, evenly spaced in the test split.
MAX_SEARCHED = 2000
# Units of a layer that are shown.
UNITS = 4
# Names of the methods in sentences.
METHOD_NAMES = {
    "deconvnet": "The deconvnet (Zeiler & Fergus 2013)",
    "guided": "Guided backpropagation (Springenberg et al. 2015)",
    "gradient": "The gradient (Simonyan et al. 2014)",
    "saliency": "The saliency map (Simonyan et al. 2014)",
    "smoothgrad": "SmoothGrad (Smilkov et al. 2017)",
    "gradcam": "Grad-CAM (Selvaraju et al. 2017)",
    "gradcam++": "Grad-CAM++ (Chattopadhay et al. 2018)",
    "scorecam": "Score-CAM (Wang et al. 2020)",
    "occlusion": "Occlusion (Zeiler & Fergus 2013)",
}


def mistakes_section(
    model: keras.Model,
    split: Split,
    mistakes: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    augmentation: Augmentation,
    explain: str,
) -> Section:
    """Return the section of the worst mistakes, each with what speaks for the two classes.

    Args:
        model: The network.
        split: The images that it was evaluated on.
        mistakes: Wrong predictions, from the results of an evaluation.
        class_names: Names of the network's classes.
        augmentation: How an image becomes the crop that the network sees.
        explain: Method of `explain_class`.
    """
    title = "Worst mistakes"
    if not mistakes:
        return Section("mistakes", title, [element("p", "No image was answered wrong.")])
    crops = _read_crops(model, split, [one["index"] for one in mistakes], augmentation)
    found, note = _explain(model, crops, mistakes, class_names, explain)
    content: list[Content] = [element("p", note)]
    for number, (one, crop) in enumerate(zip(mistakes, crops, strict=True)):
        content.append(_mistake(number, one, crop, found[number] if found else ()))
    return Section("mistakes", title, content)


def _read_crops(
    model: keras.Model, split: Split, indices: Sequence[int], augmentation: Augmentation
) -> np.ndarray:
    """Return the images as the network sees them, (n, h, w, c) float32 in 0..255."""
    order = np.array(indices)
    with report_undecodable(split):
        [batch] = batches(split, augmentation=augmentation, batch_size=len(order), order=order)
        return np.asarray(fit_images(batch["images"], model.input_shape[1:]))


def _explain(
    model: keras.Model,
    crops: np.ndarray,
    mistakes: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    method: str,
) -> tuple[list[tuple[Attribution, Attribution]], str]:
    """Return for each mistake what explains its answer and its class, and what is shown."""
    numbers = {name: number for number, name in enumerate(class_names)}
    answers = [numbers[one["top"][0][0]] for one in mistakes]
    labels = [numbers[one["label"]] for one in mistakes]
    try:
        of_answers, of_labels = (
            explain_class(model, crops, targets, method) for targets in (answers, labels)
        )
    except CnnkitError as error:
        return [], f"The answers of this network cannot be explained: {error}"
    shown = "shows the pixels that speak for a class: gray is 0."
    if not is_signed(of_answers[0]):
        shown = "colors the places that speak for a class: yellow is most."
    return list(zip(of_answers, of_labels, strict=True)), (
        "Of the images that were answered wrong, those with the least probability of their class."
        f" {METHOD_NAMES[method]} {shown}"
    )


def _mistake(
    number: int, one: dict[str, Any], crop: np.ndarray, explanations: Sequence[Attribution]
) -> Content:
    answer, label, name = one["top"][0][0], one["label"], one.get("name", f"image {one['index']}")
    pictures = [captioned(as_rgb(crop), "as the network sees it", description=f"{name}, a {label}")]
    for explanation, class_name in zip(explanations, (answer, label), strict=False):
        shown = "everywhere 0" if not explanation.map.any() else f"what speaks for {class_name}"
        pixels = explanation_pixels(crop, explanation)
        description = f"{name}: {explanation.method} of {class_name}"
        pictures.append(captioned(pixels, shown, description=description))
    rows = [
        (class_name, element("meter", value=f"{value:.4f}"), f"{value:.1%}")
        for class_name, value in one["top"]
    ]
    if label not in [class_name for class_name, _ in one["top"]]:
        value = one["probability"]
        rows.append((label, element("meter", value=f"{value:.4f}"), f"{value:.2%}"))
    heading = element("h3", f"{number + 1}. {name}")
    words = element(
        "p", "is ", element("b", label), ", was taken for ", element("b", answer),
        f" ({one['top'][0][1]:.1%})",
    )  # fmt: skip
    return element(
        "article", heading, words, *pictures, element("figure", html_table(rows)),
        id=mistake_anchor(number),
    )  # fmt: skip


def filters_section(model: keras.Model) -> Section:
    """Return the section of the kernels of the first convolution."""
    title = "First-layer filters"
    try:
        found = filters(model)
    except CnnkitError as error:
        return Section("filters", title, [element("p", str(error))])
    shown = draw_inside(
        draw_filters,
        found,
        description=f"{len(found.kernels)} kernels of {found.layer}",
        ending=".png",
    )
    return Section("filters", title, [shown])


def units_section(
    model: keras.Model,
    split: Split,
    image_size: int | None,
    progress: Callable[[int], object] | None = None,
) -> Section:
    """Return the section of the images that activate a few units most.

    Args:
        model: The network.
        split: The images that are searched.
        image_size: Side of the images, for a network that takes images of any size.
        progress: Called after every batch with its number of images.
    """
    title = "What units respond to"
    images = searched_images(split)
    try:
        layers = middle_and_last_convolution(model)
        found = find_top_activations(
            model, images, layers, image_size=image_size, progress=progress
        )
        content: list[Content] = [
            element("p", f"The nine of {len(images):,} test images that activate a unit most, and"
                         " what the deconvnet (Zeiler & Fergus 2013) finds in them. Shown are the"
                         f" {UNITS} units with the largest activations of a layer.")
        ]  # fmt: skip
        for layer in layers:
            units = np.argsort(-found[layer].values[:, 0], kind="stable")[:UNITS].tolist()
            tops = list(project_top(model, images, found[layer], units, image_size=image_size))
            words = f"Top nine images of units {', '.join(map(str, units))} of {layer}"
            content += [
                element("h3", layer),
                draw_inside(draw_top9, tops, description=words, ending=".png", dpi=110),
            ]
    except CnnkitError as error:
        content = [element("p", f"The units of this network cannot be shown: {error}")]
    return Section("units", title, content)


def searched_images(split: Split) -> Split:
    """Return at most `MAX_SEARCHED` images of a split, evenly spaced."""
    if len(split) <= MAX_SEARCHED:
        return split
    return split.subset(np.linspace(0, len(split) - 1, MAX_SEARCHED).round().astype(int))


def middle_and_last_convolution(model: keras.Model) -> list[str]:
    """Return the names of the convolution in the middle and of the last one, which may be one.

    Raises:
        UsageError: If the network has no convolutions.
    """
    names = [
        node.layer.name for node in read_nodes(model) if isinstance(node.layer, keras.layers.Conv2D)
    ]
    if not names:
        raise UsageError(f"Model {model.name!r} must have a convolution")
    return list(dict.fromkeys((names[(len(names) - 1) // 2], names[-1])))

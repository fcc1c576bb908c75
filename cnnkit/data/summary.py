"""A dataset as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from cnnkit._html.elements import Content, element, folded, html_table, image, to_html
from cnnkit.data.image_url import image_url

if TYPE_CHECKING:
    from cnnkit.data.dataset import Dataset, Split

# Classes and images that are shown, at most.
SHOWN_CLASSES, SHOWN_IMAGES = 100, 8
# Longest side of an image in pixels.
SIDE = 96


def dataset_html(dataset: Dataset) -> str:
    """Return the images of each class and split, and some images, as HTML."""
    counts = {name: dataset.count_by_class(name) for name in dataset.splits}
    total = ", ".join(f"{int(one.sum()):,} in {name}" for name, one in counts.items())
    words = f": {len(dataset.class_names):,} classes; images: {total or 'none'}"
    content: list[Content] = [element("b", f"Dataset {dataset.spec}"), words]
    if left_out := dataset.describe_left_out():
        content.append(element("div", left_out))
    split = dataset.splits.get("train") or next(iter(dataset.splits.values()), None)
    if split is not None:
        content.append(element("div", *_thumbnails(split, dataset.class_names)))
    rows = [
        (name, *(f"{one[number]:,}" for one in counts.values()))
        for number, name in enumerate(dataset.class_names[:SHOWN_CLASSES])
    ]
    title = "Images by class"
    if len(dataset.class_names) > SHOWN_CLASSES:
        title = f"Images of the first {SHOWN_CLASSES} classes"
    content.append(folded(title, html_table(rows, ("class", *counts))))
    return to_html(element("div", *content))


def _thumbnails(split: Split, class_names: Sequence[str]) -> list[Content]:
    """Return evenly spaced images of a split; those that cannot be decoded are left out."""
    shown: list[Content] = []
    for index in np.unique(np.linspace(0, len(split) - 1, SHOWN_IMAGES).round().astype(int)):
        try:
            pixels = split.load_image(tf.constant(index, tf.int64)).numpy()
        except tf.errors.OpError:
            continue
        name = class_names[split.labels[index]]
        shown.append(
            image(
                image_url(pixels, photo=True, side=SIDE),
                name,
                title=f"{name}: {split.names[index]}",
                style="height: 6em; margin: 2px",
            )
        )
    return shown

"""Figures and images as elements of a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._html.elements import Content, element, image
from cnnkit.data.image_url import data_url, image_url

_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
# Below this side the pixels of an image are shown as squares.
PIXEL_SIDE = 160


def draw_inside(
    draw: Callable[..., None],
    *arguments: Any,
    description: str,
    ending: str = ".svg",
    **options: Any,
) -> Content:
    """Return a figure of `cnnkit.figures` as an image.

    Args:
        draw: The function that draws it.
        *arguments: Its arguments before the path.
        description: What the figure shows, in words.
        ending: .svg for lines and texts, .png for images.
        **options: Further arguments of the function.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"figure{ending}"
        draw(*arguments, file, **options)
        content = file.read_bytes()
    return image(data_url(_MEDIA_TYPES[ending], content), description, class_="figure")


def captioned(pixels: np.ndarray, *caption: Content, description: str) -> Content:
    """Return an image with a caption.

    Args:
        pixels: (h, w, 3) RGB, in 0..1.
        *caption: The caption.
        description: What the image shows, in words.
    """
    class_ = {"class_": "pixels"} if max(pixels.shape[:2]) < PIXEL_SIDE else {}
    shown = image(image_url(pixels, photo=True), description, **class_)
    return element("figure", shown, element("figcaption", *caption))

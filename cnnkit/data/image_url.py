"""Images inside HTML: their pixels as data URLs."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cnnkit._html.elements import DataUrl, element, image, to_html

# Photographs above this side are written as JPEG, a tenth of the size; below it every pixel counts.
JPEG_SIDE = 96
_IMAGE_STYLE = "height: 12em; image-rendering: pixelated"


def image_url(pixels: np.ndarray, *, photo: bool = False, side: int | None = None) -> DataUrl:
    """Return an image as a data URL.

    Args:
        pixels: (h, w, 3) RGB or (h, w, 1) gray, uint8 in 0..255 or float in 0..1.
        photo: Whether it may be compressed with losses.
        side: Longest side in pixels: a larger image is reduced to it.

    Example:
        >>> image_url(np.zeros((2, 2, 3)))[:22]
        'data:image/png;base64,'
    """
    longest = max(pixels.shape[:2])
    if side is not None and longest > side:
        sides = [max(1, round(one * side / longest)) for one in pixels.shape[:2]]
        pixels = tf.image.resize(pixels, sides, antialias=True).numpy() / (
            255 if pixels.dtype == np.uint8 else 1
        )
    if pixels.dtype != np.uint8:
        pixels = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    if photo and max(pixels.shape[:2]) > JPEG_SIDE:
        return data_url("image/jpeg", tf.io.encode_jpeg(pixels, quality=88).numpy())
    return data_url("image/png", tf.io.encode_png(pixels).numpy())


def pictures_html(title: str, pictures: Sequence[tuple[np.ndarray, str]]) -> str:
    """Return pictures side by side as HTML, for notebooks.

    Args:
        title: What they are.
        pictures: Pixels, as `image_url` takes them, and the caption of each.
    """
    cells = [
        element(
            "td",
            image(image_url(pixels), f"{title}: {caption}", style=_IMAGE_STYLE),
            element("br"),
            element("small", caption),
            style="text-align: center",
        )
        for pixels, caption in pictures
    ]
    shown = element("table", element("tr", *cells)) if cells else ""
    return to_html(element("div", element("b", title), shown))


def data_url(kind: str, content: bytes) -> DataUrl:
    """Return the content of a file as a URL.

    Args:
        kind: Its media type, such as `image/png`.
        content: Its bytes.
    """
    return DataUrl(f"data:{kind};base64,{base64.b64encode(content).decode()}")

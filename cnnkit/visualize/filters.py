"""The filters of the first convolution."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.graph import read_nodes

# A filter is dead below this fraction of the median RMS, and dominating above this multiple.
DEAD = 0.1
DOMINATING = 3.0


@dataclass(frozen=True)
class Filters:
    """The filters of the first convolution (Krizhevsky et al. 2012, Fig. 3).

    Attributes:
        layer: Name of the convolution.
        kernels: (n, h, w, c), the filters in the order of their feature maps, over the channels of
            the image: 3 for RGB, 1 for gray.
        rms: (n,), the root mean square of each filter (Zeiler & Fergus 2013, section 3.1).
        dead: (n,) bool, True if the RMS is below a tenth of the median.
        dominating: (n,) bool, True if the RMS is above three times the median.
        towers: Groups of the next convolution, which divide the feature maps.
    """

    layer: str
    kernels: np.ndarray
    rms: np.ndarray
    dead: np.ndarray
    dominating: np.ndarray
    towers: int


def filters(model: keras.Model) -> Filters:
    """Returns the filters of the convolution over the image.

    Args:
        model: A model over RGB or gray images; models used as layers are opened.

    Raises:
        UsageError: If its first convolution is not over the three colors, or the gray values.

    Example:
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import filters
        >>> filters(zfnet(include_top=False)).kernels.shape
        (96, 7, 7, 3)
    """
    try:
        layers = [node.layer for node in read_nodes(model)]
    except UsageError:
        layers = model.layers
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    if not convolutions or convolutions[0].kernel.shape[2] not in (1, 3):
        raise UsageError(
            f"Model {model.name!r} has no filters over the colors of an image",
            expected="a first convolution over three channels, or one",
        )
    first, *others = convolutions
    kernels = np.moveaxis(keras.ops.convert_to_numpy(first.kernel).astype(np.float32), -1, 0)
    rms = np.sqrt(np.square(kernels).mean(axis=(1, 2, 3)))
    median = np.median(rms)
    return Filters(
        layer=first.name,
        kernels=kernels,
        rms=rms,
        dead=rms < DEAD * median,
        dominating=rms > DOMINATING * median,
        towers=others[0].groups if others else 1,
    )

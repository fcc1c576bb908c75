"""What networks do to RGB images in 0..255 before their first convolution."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnkit.errors import UsageError

# Mean of the ImageNet training images per RGB channel, as released with the VGG networks.
IMAGENET_MEAN = (123.68, 116.779, 103.939)


@dataclass(frozen=True)
class Preprocessing:
    """A mean to subtract, and a deviation to divide by.

    Attributes:
        mean: Subtracted from RGB in 0..255: (3,), or (h, w, 3) for a mean image.
        std: Then divided by: (3,), or None.
    """

    mean: Any
    std: Any = None

    def for_size(self, height: int | None, width: int | None) -> Preprocessing:
        """Returns it for images of one size: a mean image is cut to its center, as the image is.

        Raises:
            UsageError: If the mean image is smaller, or the size unknown.
        """
        mean = np.asarray(self.mean)
        if mean.ndim != 3:
            return self
        if height is None or width is None or mean.shape[0] < height or mean.shape[1] < width:
            raise UsageError(
                "The mean image does not cover the network's images",
                expected=f"a network of at most {mean.shape[0]} x {mean.shape[1]} pixels",
                received=f"{height} x {width}",
                hint="Give a mean color instead",
            )
        top, left = (mean.shape[0] - height) // 2, (mean.shape[1] - width) // 2
        return Preprocessing(mean[top : top + height, left : left + width], self.std)


# What VGG's authors released, and keras.applications took over from them.
VGG = Preprocessing(IMAGENET_MEAN)
# Mean over the pixels of the mean image that BVLC handed out with its Caffe networks.
BVLC = Preprocessing((122.67891434, 116.66876762, 104.00698793))
# torchvision and timm train in 0..1.
TORCH = Preprocessing(
    mean=tuple(255 * value for value in (0.485, 0.456, 0.406)),
    std=tuple(255 * value for value in (0.229, 0.224, 0.225)),
)


def caffe_preprocessing(names: Collection[str]) -> Preprocessing:
    """Returns what a network of Caffe's days takes, by the names of its layers."""
    return VGG if "conv1_1" in names else BVLC

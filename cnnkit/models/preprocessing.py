"""Preprocessing of RGB images in 0..255 inside networks."""

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
    """Mean and standard deviation of RGB images in 0..255.

    Attributes:
        mean: Mean to subtract: (3,), or (h, w, 3) for a mean image.
        std: Standard deviation to divide by afterwards: (3,), or None for no division.
    """

    mean: Any
    std: Any = None

    def for_size(self, height: int | None, width: int | None) -> Preprocessing:
        """Return the preprocessing for images of one size: a mean image is cropped to its center.

        Raises:
            UsageError: If the mean image is smaller, or the size is unknown.
        """
        mean = np.asarray(self.mean)
        if mean.ndim != 3:
            return self
        if height is None or width is None or mean.shape[0] < height or mean.shape[1] < width:
            raise UsageError(
                "`mean` must cover the images of the network",
                expected=f"a network of at most {mean.shape[0]} x {mean.shape[1]} pixels",
                received=f"{height} x {width}",
                hint="Give a mean color instead",
            )
        top, left = (mean.shape[0] - height) // 2, (mean.shape[1] - width) // 2
        return Preprocessing(mean[top : top + height, left : left + width], self.std)


# Released by the authors of VGG, also used by keras.applications.
VGG = Preprocessing(IMAGENET_MEAN)
# Mean over the pixels of the mean image that BVLC released with its Caffe networks.
BVLC = Preprocessing((122.67891434, 116.66876762, 104.00698793))
# torchvision and timm give mean and deviation for images in 0..1.
TORCH = Preprocessing(
    mean=tuple(255 * value for value in (0.485, 0.456, 0.406)),
    std=tuple(255 * value for value in (0.229, 0.224, 0.225)),
)


def caffe_preprocessing(names: Collection[str]) -> Preprocessing:
    """Return the preprocessing of a Caffe network: VGG's if it has `conv1_1`, else BVLC's."""
    return VGG if "conv1_1" in names else BVLC

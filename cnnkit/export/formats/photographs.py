"""Photographs on which an export is compared with the network in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit._file_tree import find_image_files
from cnnkit.data import Augmentation, Decoding
from cnnkit.data.crops import augment_image
from cnnkit.data.decode import read_image_file, resize_shorter_side
from cnnkit.export.reference_outputs import reference_images

# Photographs that every export is compared on.
COMPARED = 8
# Photographs of a folder that are read, at most.
MAX_PHOTOGRAPHS = 500


def own_photographs(side: int) -> np.ndarray:
    """Returns four windows of each of two photographs that come with scikit-learn.

    Args:
        side: Side of the windows in pixels.

    Returns:
        (8, side, side, 3) uint8 RGB.

    Example:
        >>> from cnnkit.export.formats.photographs import own_photographs
        >>> own_photographs(64).shape
        (8, 64, 64, 3)
    """
    windows = []
    for data in reference_images(side):
        image = read_image_file(data)
        height, width = image.shape[:2]
        shorter = min(height, width)
        # The left, the center and the right, and the center at twice the size.
        for left in (0, (width - shorter) // 2, width - shorter):
            windows.append(image[:shorter, left : left + shorter])
        top, left, half = height // 4, width // 4, shorter // 2
        windows.append(image[top : top + half, left : left + half])
    return np.stack([_rounded(resize_shorter_side(window, side)) for window in windows])


def _rounded(image: tf.Tensor) -> np.ndarray:
    return np.round(image.numpy()).clip(0, 255).astype(np.uint8)


def read_photographs(
    folder: str | Path, augmentation: Augmentation, decoding: Decoding
) -> np.ndarray:
    """Reads the photographs of a folder, at most `MAX_PHOTOGRAPHS`, evenly spread over its files.

    Args:
        folder: The folder; those in it are searched too.
        augmentation: Rescaling and crop.
        decoding: Background and orientation.

    Returns:
        (n, side, side, 3) uint8 RGB.

    Raises:
        UsageError: If the folder has no image files.
        DataError: If a file cannot be decoded.
    """
    files, _ = find_image_files(folder)
    if len(files) > MAX_PHOTOGRAPHS:
        files = [files[i * len(files) // MAX_PHOTOGRAPHS] for i in range(MAX_PHOTOGRAPHS)]
    crops = [augment_image(read_image_file(file, decoding), augmentation, {}) for file in files]
    return np.stack([_rounded(crop) for crop in crops])

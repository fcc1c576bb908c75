"""What a run measures of its training images, and the augmentation that follows from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cnnkit.config import TrainingConfig
from cnnkit.data import (
    Augmentation,
    ColorComponents,
    Dataset,
    PCAColorNoise,
    color_components,
    mean_color,
    mean_image,
)
from cnnkit.models.preprocessing import IMAGENET_MEAN, Preprocessing


def compute_input_statistics(
    config: TrainingConfig, source: Dataset, trained: Preprocessing | None = None
) -> dict[str, np.ndarray]:
    """Measures what `config` needs of the training images.

    Args:
        config: What is trained.
        source: The dataset.
        trained: What the network does first that training begins with; its weights are for that.

    Returns:
        {`mean`: (3,) or (size, size, 3) RGB in 0..255, what the network subtracts}, where `trained`
        divides {`std`: (3,)}, and with color noise {`eigenvalues`: (3,), `eigenvectors`: (3, 3)}
        of the colors.
    """
    images, size = source.splits["train"], config.image_size
    measured = {}
    if trained is not None and trained.std is not None:
        measured["std"] = np.array(trained.std)
    if config.mean == "dataset" and trained is not None:
        measured["mean"] = np.array(trained.mean)
    elif config.mean == "imagenet":
        measured["mean"] = np.array(IMAGENET_MEAN)
    elif config.mean == "pixel":
        measured["mean"] = mean_image(images, size, scale=_middle(config))
    else:
        measured["mean"] = np.array(mean_color(images, image_size=size))
    if config.pca_color != "none":
        components = color_components(images, image_size=size)
        measured["eigenvalues"] = np.array(components.eigenvalues)
        measured["eigenvectors"] = np.array(components.eigenvectors)
    return measured


def training_augmentation(
    config: TrainingConfig, measured: Mapping[str, np.ndarray]
) -> Augmentation:
    """Returns what is done to training images.

    Raises:
        UsageError: If the fields contradict each other.
    """
    noise = None
    if config.pca_color != "none":
        values, vectors = measured["eigenvalues"], measured["eigenvectors"]
        rows = tuple(tuple(map(float, row)) for row in vectors)
        noise = PCAColorNoise(ColorComponents(tuple(map(float, values)), rows), config.pca_color)
    return Augmentation(
        config.image_size,
        scale=config.scale,
        crop=config.crop,
        flip=config.flip,
        color=noise,
        central_square=config.central_square,
        fast_decode=config.fast_decode,
    )


def held_out_augmentation(config: TrainingConfig) -> Augmentation:
    """Returns what is done to held-out images: the center, from the middle of the scales.

    Simonyan & Zisserman 2014, section 4: Q = S, or the middle of Smin and Smax.
    """
    middle = _middle(config)
    return Augmentation(
        config.image_size,
        scale=None if middle is None else (middle, middle),
        fast_decode=config.fast_decode,
    )


def _middle(config: TrainingConfig) -> int | None:
    return None if config.scale is None else sum(config.scale) // 2

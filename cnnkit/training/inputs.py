"""Statistics of the training images, and the augmentation of training and held-out images."""

from __future__ import annotations

import dataclasses
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
    config: TrainingConfig, dataset: Dataset, initial: Preprocessing | None = None
) -> dict[str, np.ndarray]:
    """Compute the statistics of the training images that a configuration needs.

    Args:
        config: The configuration.
        dataset: The dataset.
        initial: Preprocessing of the network whose weights training begins with. With
            `config.mean == "dataset"` its mean is used, because its weights are trained for it.

    Returns:
        `mean`, (3,) or (size, size, 3) RGB in 0..255, which the network subtracts; `std`, (3,), if
        `initial` has one; with color noise `eigenvalues`, (3,), and `eigenvectors`, (3, 3), of the
        colors.
    """
    images, size = dataset.splits["train"], config.image_size
    statistics = {}
    if initial is not None and initial.std is not None:
        statistics["std"] = np.array(initial.std)
    if config.mean == "dataset" and initial is not None:
        statistics["mean"] = np.array(initial.mean)
    elif config.mean == "imagenet":
        statistics["mean"] = np.array(IMAGENET_MEAN)
    elif config.mean == "pixel":
        statistics["mean"] = mean_image(images, size, scale=_middle_scale(config))
    else:
        statistics["mean"] = np.array(mean_color(images, image_size=size))
    if config.pca_color != "none":
        components = color_components(images, image_size=size)
        statistics["eigenvalues"] = np.array(components.eigenvalues)
        statistics["eigenvectors"] = np.array(components.eigenvectors)
    return statistics


def kept_outputs(config: TrainingConfig, dataset: Dataset) -> int:
    """Return the number of images whose outputs of frozen layers are kept in memory.

    Args:
        config: The configuration.
        dataset: The dataset.
    """
    draws = min(config.augmentation_draws or 0, config.epochs)
    return draws * len(dataset.splits["train"]) + len(dataset.splits["test"])


def check_augmentation(config: TrainingConfig) -> None:
    """Check the fields about images, before anything slow is done.

    Raises:
        UsageError: If fields of the configuration contradict each other.
    """
    training_augmentation(dataclasses.replace(config, pca_color="none"), {})
    held_out_augmentation(config)


def training_augmentation(
    config: TrainingConfig, statistics: Mapping[str, np.ndarray]
) -> Augmentation:
    """Return the augmentation of the training images.

    Args:
        config: The configuration.
        statistics: Result of `compute_input_statistics`.

    Raises:
        UsageError: If fields of the configuration contradict each other.
    """
    noise = None
    if config.pca_color != "none":
        components = ColorComponents.from_arrays(
            statistics["eigenvalues"], statistics["eigenvectors"]
        )
        noise = PCAColorNoise(components, config.pca_color)
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
    """Return the preprocessing of held-out images: a center crop at the middle of the scales.

    Simonyan & Zisserman 2014, section 4: Q = S, or the middle of Smin and Smax.
    """
    middle = _middle_scale(config)
    return Augmentation(
        config.image_size,
        scale=None if middle is None else (middle, middle),
        fast_decode=config.fast_decode,
    )


def _middle_scale(config: TrainingConfig) -> int | None:
    return None if config.scale is None else sum(config.scale) // 2

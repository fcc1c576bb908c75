"""The random choices of an epoch, drawn before any image is read.

The choices of an image follow from the seed, the epoch and the image's index, and from nothing
else: not from the order, the batch, the replicas, the threads, or the step at which a run resumed.
Each purpose has its own stream, so that noise, switched on, moves no crop.
"""

from __future__ import annotations

import zlib

import numpy as np

from cnnkit.data.augmentation import Augmentation

# Top and left of the ten crops, as parts of the free play: the corners and the centre.
CORNERS_AND_CENTRE = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


def draw(
    augmentation: Augmentation, count: int, *, seed: int = 0, epoch: int = 0
) -> dict[str, np.ndarray]:
    """Draws what is random about each of `count` images in one epoch.

    Row i does not depend on `count`.

    Args:
        augmentation: What is to be drawn; what is fixed is left out.
        count: Number of images.
        seed: Of the run, at least 0.
        epoch: Of the run, at least 0.

    Returns:
        Some of {`scale`: (count,) int32, the shorter side in pixels; `position`: (count, 2)
        float64, top and left of the crop, 0..1; `mirror`: (count,) bool; `shift`: (count, 3)
        float32, what is added to R, G and B, in levels}.

    Example:
        >>> from cnnkit.data import Augmentation
        >>> choices = draw(Augmentation(224, scale=(256, 512), flip=True), 1000, seed=1)
        >>> sorted(choices)
        ['mirror', 'scale']
    """

    def stream(purpose: str) -> np.random.Generator:
        return np.random.default_rng((seed, zlib.crc32(purpose.encode()), epoch))

    choices: dict[str, np.ndarray] = {}
    smallest, largest = augmentation.scales
    if smallest < largest:
        part = stream("scale").random(count)
        choices["scale"] = (smallest + part * (largest + 1 - smallest)).astype(np.int32)
    if augmentation.crop == "random":
        choices["position"] = stream("crop").random((count, 2))
    if augmentation.crop == "ten":
        which = (5 * stream("crop").random(count)).astype(int)
        choices["position"] = np.array(CORNERS_AND_CENTRE)[which]
    if augmentation.flip or augmentation.crop == "ten":
        choices["mirror"] = stream("mirror").random(count) < 0.5
    if augmentation.colour:
        amounts = stream("colour").standard_normal((count, 3)) * augmentation.colour.deviations
        vectors = np.asarray(augmentation.colour.components.eigenvectors)
        choices["shift"] = (amounts @ vectors.T).astype(np.float32)
    return choices

"""What is done to an image on its way to the network: the choices, without any pixels.

Everything here is a frozen record of numbers and words; `cnnkit.data.augmentation` turns it into the
values of one image in one epoch, `cnnkit.data.crops` into pixels.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from cnnkit.errors import UsageError, unknown_name

CROPS = ("center", "random", "ten")
# How an eigenvalue of the colors becomes the deviation of the noise, in levels.
NOISE_MODES = ("std", "eig01")
LEVELS = 255


@dataclass(frozen=True)
class ColorComponents:
    """The principal components of the colors of a set of pixels.

    Attributes:
        eigenvalues: Variances along the components in squared levels of 0..255, largest first.
        eigenvectors: Three rows, R, G and B; column k is the unit vector of component k. The entry
            of a column that is largest in size is positive.
    """

    eigenvalues: tuple[float, float, float]
    eigenvectors: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class PCAColorNoise:
    """Noise along the principal components of the colors (Krizhevsky et al. 2012, section 4.1).

    To every pixel of an image the same color is added, the sum over the components k of
    `p_k a_k s_k`, with a_k drawn from N(0, deviation) once an image and epoch.

    The paper calls s_k the eigenvalue. Taken literally on pixels of 0..255 that is noise of
    hundreds of levels, so there are two readings, which differ:

    - `"std"`: the square root of the eigenvalue, as in the authors' own code. On ImageNet the
      deviations are 11.9, 3.5 and 1.7 levels.
    - `"eig01"`: the eigenvalue of pixels in 0..1, as in fb.resnet.torch. On ImageNet the
      deviations are 5.5, 0.48 and 0.11 levels.

    The authors' code also divides the image, after its mean was subtracted, by 1 + deviation. The
    paper does not speak of it, and it would give training images less contrast than the images at
    test; it is not done here. Nothing is clipped: a bright pixel may pass 255, as in that code.

    Attributes:
        components: Of the training images, from `color_components`.
        mode: `"std"` or `"eig01"`.
        deviation: Standard deviation of a_k, at least 0.

    Raises:
        UsageError: If a field is out of its range.

    Example:
        >>> usual = ColorComponents(
        ...     eigenvalues=(0.2175 * 255**2, 0.0188 * 255**2, 0.0045 * 255**2),
        ...     eigenvectors=((0.5675, 0.7192, -0.4009), (0.5808, -0.0045, 0.8140),
        ...                   (0.5836, -0.6948, -0.4203)),
        ... )
        >>> [round(float(s), 2) for s in PCAColorNoise(usual).deviations]
        [11.89, 3.5, 1.71]
        >>> [round(float(s), 2) for s in PCAColorNoise(usual, mode="eig01").deviations]
        [5.55, 0.48, 0.11]
    """

    components: ColorComponents
    mode: str = "std"
    deviation: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in NOISE_MODES:
            raise unknown_name("mode of color noise", self.mode, NOISE_MODES)
        if not (math.isfinite(self.deviation) and self.deviation >= 0):
            raise UsageError(
                "Color noise has a deviation", expected="at least 0", received=self.deviation
            )

    @property
    def deviations(self) -> np.ndarray:
        """Standard deviation of the noise along each component, in levels, (3,) float64."""
        values = np.asarray(self.components.eigenvalues)
        scale = np.sqrt(values) if self.mode == "std" else values / LEVELS
        return self.deviation * scale


@dataclass(frozen=True)
class Augmentation:
    """The way from an image of any size to the square that the network takes.

    The shorter side is rescaled, a square is cut out, perhaps mirrored, perhaps tinted. What is
    random is drawn for each image and epoch: see `cnnkit.data.batches`.

    Attributes:
        image_size: Side of the square in pixels.
        scale: The shorter side before the crop: drawn uniformly from the whole numbers of
            [smallest, largest] (Simonyan & Zisserman 2014, section 3.1); None is `image_size`.
        crop: `"center"`, `"random"`, or `"ten"`: one of the four corners and the center, as it is
            or mirrored, all ten equally likely (Zeiler & Fergus 2013, section 3).
        flip: Whether every second image, by chance, is mirrored; `"ten"` does so by itself.
        color: Noise to be added.
        square: Whether the crop stays inside the central square of the rescaled image, as for
            AlexNet and ZFNet, instead of the whole of it, as for VGG.
        fast_decode: Takes quicker ways whose pixels differ a little: JPEG's fast arithmetic,
            reduced sizes straight from the file where it is twice as large or more, and bilinear
            rescaling without antialiasing of a window of whole pixels.

    Raises:
        UsageError: If a field is out of its range or contradicts another.

    Example:
        >>> Augmentation(224, scale=(256, 256), crop="random", flip=True, square=True)  # AlexNet
        Augmentation(image_size=224, scale=(256, 256), crop='random', flip=True, color=None,
            square=True, fast_decode=False)
        >>> Augmentation(224, scale=(200, 256))
        Traceback (most recent call last):
        cnnkit.errors.UsageError: The shorter side is too small for the crop. Expected: at least
            224. Received: 200.
    """

    image_size: int
    scale: tuple[int, int] | None = None
    crop: str = "center"
    flip: bool = False
    color: PCAColorNoise | None = None
    square: bool = False
    fast_decode: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise UsageError("An image has pixels", expected="at least 1", received=self.image_size)
        if self.crop not in CROPS:
            raise unknown_name("crop", self.crop, CROPS)
        if self.crop == "ten" and self.flip:
            raise UsageError(
                "The ten crops are mirrored already", expected="crop='ten' without flip"
            )
        smallest, largest = self.scales
        if smallest > largest:
            raise UsageError(
                "The shorter side is drawn from a range",
                expected="(smallest, largest)",
                received=self.scale,
            )
        if smallest < self.image_size:
            raise UsageError(
                "The shorter side is too small for the crop",
                expected=f"at least {self.image_size}",
                received=smallest,
            )

    def keeps(self, height: int, width: int) -> bool:
        """Tells whether every image of these sides stays as it is."""
        sides = {height, width, *self.scales, self.image_size}
        return len(sides) == 1 and self.crop == "center" and not self.flip and not self.color

    @property
    def scales(self) -> tuple[int, int]:
        """The smallest and the largest shorter side before the crop."""
        return self.scale or (self.image_size, self.image_size)


# Top and left of the ten crops, as parts of the free play: the corners and the center.
CORNERS_AND_CENTER = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


def sample_augmentation(
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
        >>> choices = sample_augmentation(Augmentation(224, scale=(256, 512), flip=True), 1000, seed=1)
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
        choices["position"] = np.array(CORNERS_AND_CENTER)[which]
    if augmentation.flip or augmentation.crop == "ten":
        choices["mirror"] = stream("mirror").random(count) < 0.5
    if augmentation.color:
        amounts = stream("colour").standard_normal((count, 3)) * augmentation.color.deviations
        vectors = np.asarray(augmentation.color.components.eigenvectors)
        choices["shift"] = (amounts @ vectors.T).astype(np.float32)
    return choices

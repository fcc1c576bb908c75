"""What is done to an image on its way to the network: the choices, without any pixels.

Everything here is a frozen record of numbers and words; `cnnkit.data.draws` turns it into the
values of one image in one epoch, `cnnkit.data.crops` into pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cnnkit.errors import UsageError, unknown_name

CROPS = ("center", "random", "ten")
# How an eigenvalue of the colours becomes the deviation of the noise, in levels.
NOISE_MODES = ("std", "eig01")
LEVELS = 255


@dataclass(frozen=True)
class ColourComponents:
    """The principal components of the colours of a set of pixels.

    Attributes:
        eigenvalues: Variances along the components in squared levels of 0..255, largest first.
        eigenvectors: Three rows, R, G and B; column k is the unit vector of component k. The entry
            of a column that is largest in size is positive.
    """

    eigenvalues: tuple[float, float, float]
    eigenvectors: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class ColourNoise:
    """Noise along the principal components of the colours (Krizhevsky et al. 2012, section 4.1).

    To every pixel of an image the same colour is added, the sum over the components k of
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
        components: Of the training images, from `colour_components`.
        mode: `"std"` or `"eig01"`.
        deviation: Standard deviation of a_k, at least 0.

    Raises:
        UsageError: If a field is out of its range.

    Example:
        >>> usual = ColourComponents(
        ...     eigenvalues=(0.2175 * 255**2, 0.0188 * 255**2, 0.0045 * 255**2),
        ...     eigenvectors=((0.5675, 0.7192, -0.4009), (0.5808, -0.0045, 0.8140),
        ...                   (0.5836, -0.6948, -0.4203)),
        ... )
        >>> [round(float(s), 2) for s in ColourNoise(usual).deviations]
        [11.89, 3.5, 1.71]
        >>> [round(float(s), 2) for s in ColourNoise(usual, mode="eig01").deviations]
        [5.55, 0.48, 0.11]
    """

    components: ColourComponents
    mode: str = "std"
    deviation: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in NOISE_MODES:
            raise unknown_name("mode of colour noise", self.mode, NOISE_MODES)
        if not (math.isfinite(self.deviation) and self.deviation >= 0):
            raise UsageError(
                "Colour noise has a deviation", expected="at least 0", received=self.deviation
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
        crop: `"center"`, `"random"`, or `"ten"`: one of the four corners and the centre, as it is
            or mirrored, all ten equally likely (Zeiler & Fergus 2013, section 3).
        flip: Whether every second image, by chance, is mirrored; `"ten"` does so by itself.
        colour: Noise to be added.
        square: Whether the crop stays inside the central square of the rescaled image, as for
            AlexNet and ZFNet, instead of the whole of it, as for VGG.
        fast_decode: Takes quicker ways whose pixels differ a little: JPEG's fast arithmetic,
            reduced sizes straight from the file where it is twice as large or more, and bilinear
            rescaling without antialiasing of a window of whole pixels.

    Raises:
        UsageError: If a field is out of its range or contradicts another.

    Example:
        >>> Augmentation(224, scale=(256, 256), crop="random", flip=True, square=True)  # AlexNet
        Augmentation(image_size=224, scale=(256, 256), crop='random', flip=True, colour=None,
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
    colour: ColourNoise | None = None
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
        return len(sides) == 1 and self.crop == "center" and not self.flip and not self.colour

    @property
    def scales(self) -> tuple[int, int]:
        """The smallest and the largest shorter side before the crop."""
        return self.scale or (self.image_size, self.image_size)

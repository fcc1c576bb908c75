"""Augmentation settings, and the random parameters of each image in an epoch.

No pixels are touched here: `cnnkit.data.crops` applies the parameters to an image.

The parameters of an image follow from the seed, the epoch and the image's index alone. They do not
depend on the order, the batch, the replicas, the threads, or the step at which a run resumed. Each
kind of parameter has its own random stream, so that switching the color noise on moves no crop.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from cnnkit._network_names import check_scale
from cnnkit.errors import UsageError, unknown_name

CROPS = ("center", "random", "ten")
# Conversion of an eigenvalue of the colors to the standard deviation of the noise, in levels.
NOISE_MODES = ("std", "eig01")
LEVELS = 255
# Names of the random parameters of an image.
PARAMETERS = ("scale", "position", "mirror", "shift")
# Top and left of the ten crops, as fractions of the free range: the corners and the center.
CORNERS_AND_CENTER = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


@dataclass(frozen=True)
class ColorComponents:
    """Principal components of the colors of a set of pixels.

    Attributes:
        eigenvalues: Variances along the components in squared levels of 0..255, largest first.
        eigenvectors: Three rows, R, G and B; column k is the unit vector of component k. The entry
            of a column with the largest magnitude is positive.
    """

    eigenvalues: tuple[float, float, float]
    eigenvectors: tuple[tuple[float, float, float], ...]

    @classmethod
    def from_arrays(cls, eigenvalues: np.ndarray, eigenvectors: np.ndarray) -> ColorComponents:
        """Return the components whose attributes are given as arrays, (3,) and (3, 3)."""
        first, second, third = map(float, eigenvalues)
        rows = tuple((float(one), float(two), float(three)) for one, two, three in eigenvectors)
        return cls((first, second, third), rows)


@dataclass(frozen=True)
class PCAColorNoise:
    """Noise along the principal components of the colors (Krizhevsky et al. 2012, section 4.1).

    The same color is added to every pixel of an image: the sum over the components k of
    `p_k a_k s_k`, with a_k drawn from N(0, deviation) once per image and epoch.

    The paper calls s_k the eigenvalue. On pixels in 0..255 that would give noise of hundreds of
    levels, so there are two readings:

    - `"std"`: the square root of the eigenvalue, as in the authors' own code. On ImageNet the
      deviations are 11.9, 3.5 and 1.7 levels.
    - `"eig01"`: the eigenvalue of pixels in 0..1, as in fb.resnet.torch. On ImageNet the
      deviations are 5.5, 0.48 and 0.11 levels.

    The authors' code also divides the image, after subtracting its mean, by 1 + deviation. The
    paper does not mention this division, and it would give training images less contrast than
    test images, so it is left out here. Nothing is clipped: a bright pixel may pass 255, as in
    that code.

    Attributes:
        components: Principal components of the training images, from `color_components`.
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
                "`deviation` of the color noise must be a finite number",
                expected="at least 0",
                received=self.deviation,
            )

    @property
    def deviations(self) -> np.ndarray:
        """Standard deviation of the noise along each component, in levels, (3,) float64."""
        values = np.asarray(self.components.eigenvalues)
        scale = np.sqrt(values) if self.mode == "std" else values / LEVELS
        return self.deviation * scale


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of images of any size to the square input of a network.

    The shorter side is rescaled, then a square is cropped, flipped horizontally and tinted. The
    random parameters are drawn for each image and epoch: see `cnnkit.data.batches`.

    Attributes:
        image_size: Side of the square crop in pixels.
        scale: Range of the shorter side before the crop, drawn uniformly from the whole numbers
            in [smallest, largest] (Simonyan & Zisserman 2014, section 3.1); None is `image_size`.
        crop: `"center"`, `"random"`, or `"ten"`: one of the four corners and the center, as it is
            or mirrored, all ten equally likely (Zeiler & Fergus 2013, section 3).
        flip: Whether to mirror each image with probability 0.5; `"ten"` does so by itself.
        color: Color noise to add, or None.
        central_square: Whether the crop stays inside the central square of the rescaled image, as
            for AlexNet and ZFNet. Otherwise it may lie anywhere in the image, as for VGG.
        fast_decode: Whether to use faster methods whose pixels differ a little: JPEG's fast
            arithmetic, JPEG decoding at a reduced size if the image is at least twice as large as
            needed, and bilinear rescaling of a window of whole pixels without antialiasing.

    Raises:
        UsageError: If a field is out of its range or contradicts another.

    Example:
        >>> # AlexNet
        >>> Augmentation(224, scale=(256, 256), crop="random", flip=True, central_square=True)
        Augmentation(image_size=224, scale=(256, 256), crop='random', flip=True, color=None,
            central_square=True, fast_decode=False)
        >>> Augmentation(224, scale=(200, 256))
        Traceback (most recent call last):
        cnnkit.errors.UsageError: The shorter side in `scale` is too small for the crop. Expected:
            at least 224. Received: 200.
    """

    image_size: int
    scale: tuple[int, int] | None = None
    crop: str = "center"
    flip: bool = False
    color: PCAColorNoise | None = None
    central_square: bool = False
    fast_decode: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise UsageError(
                "`image_size` must be positive", expected="at least 1", received=self.image_size
            )
        if self.crop not in CROPS:
            raise unknown_name("crop", self.crop, CROPS)
        if self.crop == "ten" and self.flip:
            raise UsageError(
                "`flip` must be False with `crop='ten'`, whose crops are mirrored already",
                expected="`crop='ten'` without `flip`",
            )
        smallest, largest = self.scales
        if smallest > largest:
            raise UsageError(
                "`scale` must be an ascending range",
                expected="(smallest, largest)",
                received=self.scale,
            )
        check_scale(smallest, self.image_size)

    def is_identity(self, height: int, width: int) -> bool:
        """Return True if an image with these sides, in pixels, always stays unchanged."""
        sides = {height, width, *self.scales, self.image_size}
        return len(sides) == 1 and self.crop == "center" and not self.flip and not self.color

    @property
    def scales(self) -> tuple[int, int]:
        """Smallest and largest shorter side before the crop, in pixels."""
        return self.scale or (self.image_size, self.image_size)


def sample_augmentation(
    augmentation: Augmentation, count: int, *, seed: int = 0, epoch: int = 0
) -> dict[str, np.ndarray]:
    """Draw the random parameters of `count` images in one epoch.

    Row i does not depend on `count`.

    Args:
        augmentation: The settings. Fixed parameters are left out of the result.
        count: Number of images.
        seed: Seed of the run, at least 0.
        epoch: Number of the epoch, at least 0.

    Returns:
        A subset of {`scale`: (count,) int32, the shorter side in pixels; `position`: (count, 2)
        float64, top and left of the crop as fractions of the free range, 0..1; `mirror`: (count,)
        bool; `shift`: (count, 3) float32, levels to add to R, G and B}.

    Example:
        >>> from cnnkit.data import Augmentation
        >>> augmentation = Augmentation(224, scale=(256, 512), flip=True)
        >>> parameters = sample_augmentation(augmentation, 1000, seed=1)
        >>> sorted(parameters)
        ['mirror', 'scale']
    """

    def stream(name: str) -> np.random.Generator:
        return np.random.default_rng((seed, zlib.crc32(name.encode()), epoch))

    parameters: dict[str, np.ndarray] = {}
    smallest, largest = augmentation.scales
    if smallest < largest:
        fraction = stream("scale").random(count)
        parameters["scale"] = (smallest + fraction * (largest + 1 - smallest)).astype(np.int32)
    if augmentation.crop == "random":
        parameters["position"] = stream("crop").random((count, 2))
    if augmentation.crop == "ten":
        crop = (5 * stream("crop").random(count)).astype(int)
        parameters["position"] = np.array(CORNERS_AND_CENTER)[crop]
    if augmentation.flip or augmentation.crop == "ten":
        parameters["mirror"] = stream("mirror").random(count) < 0.5
    if augmentation.color:
        # The name is part of the seed. Spelled otherwise, every run's noise would change.
        noise = stream("colour").standard_normal((count, 3)) * augmentation.color.deviations
        vectors = np.asarray(augmentation.color.components.eigenvectors)
        parameters["shift"] = (noise @ vectors.T).astype(np.float32)
    return parameters

"""Preprocessing of RGB images in 0..255 before the first layer with weights.

Every network of the package takes RGB images in 0..255. What its first kernel expects is a property
of its weights: the order of the colors, a mean, a deviation. A file may say it, the caller may say
it, or it is the custom of a format; `Preprocessing.origin` tells which.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnnkit.errors import AssumptionWarning, UsageError, unknown_name, warn

# Mean of the ImageNet training images per RGB channel, as released with the VGG networks.
IMAGENET_MEAN = (123.68, 116.779, 103.939)
CHANNELS = ("RGB", "BGR")
# Where a preprocessing comes from: the file, an argument, the custom of a format, or nowhere.
FILE, ARGUMENT, CONVENTION, UNKNOWN = "file", "argument", "convention", "unknown"


@dataclass(frozen=True)
class Preprocessing:
    """What happens to RGB images in 0..255 before the first kernel.

    The first kernel takes `(images - mean) / std`, with its channels in the order `channels`.

    Attributes:
        mean: Mean to subtract, RGB in 0..255: (3,), or (h, w, 3) for a mean image.
        std: Standard deviation to divide by afterwards, RGB in 0..255: (3,), or None for none.
        channels: Order of the colors that the first kernel expects, `"RGB"` or `"BGR"`.
        origin: `"file"` if the file says it, `"argument"` if the caller does, `"convention"` if it
            is the custom for such files, `"unknown"` if nothing tells.
        reason: What the file says, or which custom it is.
    """

    mean: Any = (0.0, 0.0, 0.0)
    std: Any = None
    channels: str = "RGB"
    origin: str = ARGUMENT
    reason: str = ""

    @property
    def is_assumed(self) -> bool:
        """Whether neither the file nor the caller says it."""
        return self.origin in (CONVENTION, UNKNOWN)

    @property
    def is_identity(self) -> bool:
        """Whether the first kernel takes RGB images in 0..255 as they are."""
        return self.channels == "RGB" and self.std is None and not np.any(self.mean)

    def contradicts(self, other: Preprocessing) -> bool:
        """Whether the file states this one, and `other` has other numbers."""
        return self.origin == FILE and (
            self.channels != other.channels
            or np.shape(self.mean) != np.shape(other.mean)
            or not np.allclose(self.mean, other.mean, rtol=1e-3)
            or not np.allclose(
                1 if self.std is None else self.std, 1 if other.std is None else other.std, 1e-3
            )
        )

    def by_convention(self, reason: str) -> Preprocessing:
        """Return the same preprocessing as the custom `reason`, for example `"Caffe"`."""
        return replace(self, origin=CONVENTION, reason=reason)

    def said_by_file(self, reason: str) -> Preprocessing:
        """Return the same preprocessing as what a file says by `reason`."""
        return replace(self, origin=FILE, reason=reason)

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
        return replace(self, mean=mean[top : top + height, left : left + width])

    def describe(self) -> str:
        """Return the preprocessing and its origin in words.

        Example:
            >>> PRESETS["caffe"].by_convention("Caffe").describe()
            'BGR, minus 103.9 116.8 123.7, assumed: convention of Caffe'
            >>> PRESETS["unit"].describe()
            'RGB, divided by 255, as given'
        """
        parts = [self.channels]
        if self.origin == UNKNOWN:
            return f"{self.reason or 'not stated in the file'}; taken as {self.channels} in 0..255"
        if np.any(self.mean):
            mean = np.asarray(self.mean, float)
            kind = "" if mean.ndim == 1 else f" (mean image, {mean.shape[0]} x {mean.shape[1]})"
            parts.append(f"minus {self._in_order(mean.reshape(-1, mean.shape[-1]).mean(0))}{kind}")
        if self.std is not None:
            parts.append(f"divided by {self._in_order(np.asarray(self.std, float))}")
        if len(parts) == 1:
            parts.append("0..255 as they are")
        origin = {
            FILE: f"stated in the file{self.reason and f': {self.reason}'}",
            ARGUMENT: "as given",
            CONVENTION: f"assumed: convention of {self.reason}",
        }
        return ", ".join([*parts, origin[self.origin]])

    def _in_order(self, values: np.ndarray) -> str:
        values = values[::-1] if self.channels == "BGR" else values
        if np.ptp(values) == 0:
            return f"{values[0]:.4g}"
        return " ".join(f"{value:.1f}" for value in values)


# Released by the authors of VGG, also used by keras.applications.
VGG = Preprocessing(IMAGENET_MEAN, channels="BGR")
# Mean over the pixels of the mean image that BVLC released with its Caffe networks.
BVLC = Preprocessing((122.67891434, 116.66876762, 104.00698793), channels="BGR")
# torchvision and timm give mean and deviation for images in 0..1.
TORCH = Preprocessing(
    mean=tuple(255 * value for value in (0.485, 0.456, 0.406)),
    std=tuple(255 * value for value in (0.229, 0.224, 0.225)),
)
# By the names of `mode` in keras.applications' `preprocess_input`; `unit` is images in 0..1.
PRESETS = {
    "caffe": VGG,
    "torch": TORCH,
    "tf": Preprocessing((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "unit": Preprocessing(std=(255.0, 255.0, 255.0)),
    "raw": Preprocessing(),
}


def compose(outside: Preprocessing, inside: Preprocessing) -> Preprocessing:
    """Return the preprocessing that does `outside`, then `inside`, with the origin of `outside`.

    Args:
        outside: What is done to RGB images in 0..255.
        inside: What is done to its result; its numbers are those of the channels in RGB order, as
            if the result had that order.
    """
    flipped = outside.channels == "BGR"
    std = np.ones(3) if outside.std is None else np.asarray(outside.std, float)
    inner_mean, inner_std = np.asarray(inside.mean, float), inside.std
    if flipped:
        inner_mean = inner_mean[..., ::-1]
        inner_std = None if inner_std is None else np.asarray(inner_std)[::-1]
    mean: Any = np.asarray(outside.mean, float) + inner_mean * std
    total = std if inner_std is None else std * np.asarray(inner_std, float)
    return replace(
        outside,
        mean=tuple(mean.tolist()) if mean.ndim == 1 else mean,
        std=None if (total == 1).all() else tuple(total.tolist()),
        channels="BGR" if flipped != (inside.channels == "BGR") else "RGB",
    )


def caffe_preprocessing(names: Collection[str]) -> Preprocessing:
    """Return the preprocessing of a Caffe network: VGG's if it has `conv1_1`, else BVLC's."""
    return (VGG if "conv1_1" in names else BVLC).by_convention("Caffe")


def from_statistics(mean: Any, std: Any = None) -> Preprocessing:
    """Return the preprocessing of a mean and a deviation, of images in 0..255 or in 0..1.

    Args:
        mean: (3,) or (h, w, 3), RGB.
        std: (3,), RGB, or None.

    Returns:
        The preprocessing, with the origin `"unknown"` if the numbers fit both ranges or neither.
    """
    mean = np.asarray(mean, float)
    std = None if std is None else np.asarray(std, float)
    telling = np.concatenate([mean[mean != 0], [] if std is None else std[std != 1]])
    if telling.size and (telling <= 1).all():
        return Preprocessing(255 * mean, np.full(3, 255.0) if std is None else 255 * std)
    if telling.size and (telling > 1).all():
        return Preprocessing(mean, std)
    reason = (
        f"mean {mean.reshape(-1, 3)[0]} and deviation {std} do not tell the range of the images"
    )
    return Preprocessing(origin=UNKNOWN, reason=reason)


def find_preset(name: str) -> Preprocessing:
    """Return a preset: `caffe`, `torch`, `tf`, `unit` or `raw`.

    Raises:
        UsageError: If there is no such preset.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise unknown_name("preprocessing", name, PRESETS)
    return PRESETS[name]


def override_preprocessing(
    found: Preprocessing,
    preset: str | Preprocessing | None = None,
    *,
    channels: str | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    std: Sequence[float] | float | None = None,
    scale: float | None = None,
) -> Preprocessing:
    """Return a preprocessing in which the arguments that are not None take the place of `found`.

    Args:
        found: What the file says, or the custom of its format.
        preset: Name of a preset, or a preprocessing, in place of all of `found`.
        channels: `"RGB"` or `"BGR"`.
        mean: (3,), or (h, w, 3), RGB in 0..255.
        std: (3,), or one number for all channels, in 0..255; 1 for no division.
        scale: Factor of the difference, as in Caffe's `transform_param`: 1 / `std` for all
            channels. It is applied after `std`.

    Returns:
        The preprocessing. It still counts as a custom if a part of it is one.

    Raises:
        UsageError: If a name is unknown, or a number has another shape or is out of range.

    Example:
        >>> override_preprocessing(TORCH, std=1).describe()
        'RGB, minus 123.7 116.3 103.5, as given'
        >>> override_preprocessing(Preprocessing(), mean=[128, 128, 128], scale=1 / 128).std
        (128.0, 128.0, 128.0)
    """
    given = (preset, channels, mean, std, scale)
    if all(value is None for value in given):
        return found
    if preset is not None:
        found = preset if isinstance(preset, Preprocessing) else find_preset(preset)
    if channels is not None and channels not in CHANNELS:
        raise unknown_name("order of colors", channels, CHANNELS)
    new_mean = found.mean if mean is None else _checked_mean(mean)
    new_std = found.std if std is None else _checked_std(std)
    if scale is not None:
        if not 0 < scale < np.inf:
            raise UsageError("`scale` must be a factor above 0", received=scale)
        new_std = np.ones(3) / scale if new_std is None else np.asarray(new_std) / scale
    if new_std is not None:
        new_std = None if np.all(np.asarray(new_std) == 1) else tuple(map(float, new_std))
    changed = Preprocessing(new_mean, new_std, channels or found.channels)
    complete = None not in (channels, scale if std is None else 1) and mean is not None
    if found.origin == CONVENTION and not complete:
        return changed.by_convention(f"{found.reason}, except for what is given")
    return changed


def _checked_mean(mean: Sequence[float] | np.ndarray) -> Any:
    values = np.asarray(mean)
    if values.ndim not in (1, 3) or values.shape[-1] != 3 or not np.isfinite(values).all():
        raise UsageError(
            "`mean` must be that of RGB images in 0..255",
            expected="3 finite numbers, or (height, width, 3)",
            received=mean if values.ndim < 2 else values.shape,
        )
    if values.any() and np.abs(values).max() <= 1:
        raise UsageError(
            "`mean` must be in 0..255, not in 0..1",
            expected=f"{', '.join(f'{255 * value:g}' for value in values.reshape(-1, 3)[0])}"
            " for images in 0..1 with this mean",
            received=mean if values.ndim == 1 else values.shape,
        )
    return mean


def _checked_std(std: Sequence[float] | float) -> np.ndarray:
    values = np.asarray(std, float)
    if values.shape not in ((), (3,)) or not (np.isfinite(values) & (values > 0)).all():
        raise UsageError("`std` must be 3 numbers above zero, or one for all", received=std)
    if values.min() < 1:
        raise UsageError(
            "`std` must be that of images in 0..255, not in 0..1",
            expected=f"{', '.join(f'{255 * value:g}' for value in values.reshape(-1))}"
            " for images in 0..1 with this deviation",
            received=std,
        )
    return np.broadcast_to(values, (3,))


def contradiction(stated: Preprocessing, given: Preprocessing, file: object) -> UsageError:
    """Return the error for a preprocessing that a file contradicts."""
    return UsageError(
        f"`preprocessing` must be what {file} states itself, or be left out",
        expected=stated.describe(),
        received=given.describe(),
    )


def warn_if_assumed(preprocessing: Preprocessing, file: object, how: str) -> None:
    """Warn about a preprocessing that neither the file nor the caller says.

    Args:
        preprocessing: The preprocessing that is going to be used.
        file: The file.
        how: How to say otherwise.
    """
    if preprocessing.is_assumed:
        warn(f"{file}: {preprocessing.describe()}. {how}", AssumptionWarning, stacklevel=3)

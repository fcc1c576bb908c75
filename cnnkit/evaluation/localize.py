"""Find the classes and the boxes of objects in image files, and measure boxes that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data import Split
from cnnkit.data.boxes import overlap
from cnnkit.data.decode import read_image_file
from cnnkit.errors import DataError, UsageError, unknown_name
from cnnkit.evaluation.image_classifier import ImageClassifier
from cnnkit.evaluation.localizer import Localizer, LocatedObject
from cnnkit.evaluation.metrics import wilson_interval
from cnnkit.evaluation.predict import ERRORS, NamedImage, collect_results, find_named_images
from cnnkit.training.objectives import MIN_OVERLAP

# Classes of an image that ILSVRC's localization counts.
TOP = 5


@dataclass(frozen=True)
class FileLocalization:
    """The classes in one image file, and where they are.

    Attributes:
        name: Name of the file, as it was given or found.
        objects: The most probable classes with their boxes, in order.
        image: (h, w, 3) uint8 RGB; None if it could not be read.
        error: Why the file could not be read; None if it was.
    """

    name: str
    objects: tuple[LocatedObject, ...] = ()
    image: np.ndarray | None = field(default=None, repr=False)
    error: str | None = None


@dataclass(frozen=True)
class LocalizationErrors:
    """Errors of boxes on labeled images (Russakovsky et al. 2015, section 4.2).

    A box is right if its intersection over union with a box of the image is at least 0.5.

    Attributes:
        method: The method that found the boxes.
        images: Number of images.
        top1_error: Fraction of images whose most probable class, or its box, is wrong.
        top5_error: Fraction of images for which none of the five most probable classes is right
            together with its box; of fewer classes, all.
        box_error: Fraction of images in which the box of the right class is wrong.
        class_error: Fraction of images whose most probable class is wrong.
        mean_overlap: Mean intersection over union of the box of the right class, 0..1.
        overlaps: (images,) float32, that of each image.
    """

    method: str
    images: int
    top1_error: float
    top5_error: float
    box_error: float
    class_error: float
    mean_overlap: float
    overlaps: np.ndarray = field(repr=False)

    @property
    def box_interval(self) -> tuple[float, float]:
        """95 % Wilson score interval of `box_error`."""
        return wilson_interval(round(self.box_error * self.images), self.images)

    def to_dict(self) -> dict[str, Any]:
        """Return the errors as values that JSON can hold."""
        names = ("top1_error", "top5_error", "box_error", "class_error", "mean_overlap")
        return {
            "method": self.method,
            "images": self.images,
            **{name: getattr(self, name) for name in names},
            "box_interval": list(self.box_interval),
        }


def localize(
    model: keras.Model | ImageClassifier | Localizer | str | Path,
    paths: str | Path | Sequence[str | Path],
    *,
    top: int = 1,
    errors: str = "raise",
    progress: Callable[[int], object] = lambda images: None,
    **options: Any,
) -> list[FileLocalization]:
    """Find the most probable classes of image files, and the box of each.

    A network that was trained with `task="localize"` has boxes of its own; of any other classifier,
    the box is drawn around what speaks for the class, by Grad-CAM if `method` names no other.

    Args:
        model: A network, the path of a run folder or of a `.keras` file, or a `Localizer`.
        paths: Image files (JPEG, PNG, GIF, BMP, WebP), and folders, which stand for the image files
            below them in the order of their names.
        top: Number of classes of each image, at most all.
        errors: What becomes of a file that cannot be read: `"raise"` raises its error, `"keep"`
            returns a result with `error`.
        progress: Called with the number of images that are done since the last call.
        **options: Arguments of `cnnkit.evaluation.Localizer`: `method`, `scales`, `classifier`.

    Returns:
        A result for every image, in order.

    Raises:
        UsageError: If a path does not exist, or the network or an argument does not fit.
        DataError: If a file is not an image.
        RunError: If the network cannot be loaded, or its scores are not finite.

    Example:
        >>> import cnnkit
        >>> cnnkit.localize("runs/pets", "cat.jpg")[0].objects[0].box  # doctest: +SKIP
        (12.4, 30.1, 201.7, 188.0)
    """
    if errors not in ERRORS:
        raise unknown_name("value of `errors`", errors, ERRORS)
    images = find_named_images([paths] if isinstance(paths, str | Path) else paths)
    localizer = model if isinstance(model, Localizer) else Localizer(model, **options)
    return collect_results(iter_localizations(localizer, images, top=top), errors, progress)


def iter_localizations(
    localizer: Localizer, images: Sequence[NamedImage], *, top: int = 1
) -> Iterator[FileLocalization]:
    """Find the classes of images one after the other.

    Args:
        localizer: The network.
        images: Names and files, or encoded images.
        top: Number of classes of each image, at most all.

    Yields:
        A result for every image, in order.

    Raises:
        UsageError: If `top` is less than 1, at the first step.
    """
    if top < 1:
        raise UsageError("`top` must be at least 1", received=top)
    for name, file in images:
        try:
            image = read_image_file(file, localizer.network.decoding, name=name).numpy()
        except DataError as error:
            yield FileLocalization(name, error=str(error))
            continue
        found = localizer.locate(image, top=top, name=name)
        yield FileLocalization(name, tuple(found), image)


def measure_localization(
    localizer: Localizer,
    split: Split,
    class_names: Sequence[str],
    *,
    progress: Callable[[int], object] = lambda images: None,
) -> LocalizationErrors:
    """Measure the boxes of a network on images whose boxes are known.

    Args:
        localizer: The network.
        split: Images with boxes, of a dataset `boxes:PATH`.
        class_names: Names of the classes of the dataset.
        progress: Called with the number of images that are done since the last call.

    Raises:
        UsageError: If the images have no boxes, or the network has other classes.
        DataError: If an image cannot be decoded.
        RunError: If the scores of the network are not finite.
    """
    known = _boxes_of(split)
    if tuple(class_names) != localizer.class_names:
        raise UsageError(
            "`class_names` must be the classes of the network, in their order",
            expected=", ".join(localizer.class_names[:TOP]),
            received=", ".join(class_names[:TOP]),
        )
    split = split.decoded(localizer.network.decoding)
    overlaps, right = [], []
    for i, (label, boxes) in enumerate(zip(split.labels.tolist(), known, strict=True)):
        try:
            image = split.load_image(tf.constant(i, tf.int64)).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise DataError(
                f"{split.names[i]} cannot be decoded", received=error.message
            ) from error
        order = np.argsort(-localizer.probabilities(image, split.names[i]), kind="stable")
        [box] = localizer.boxes(image, [label])
        overlaps.append(float(tf.reduce_max(overlap(tf.constant(box), tf.constant(boxes)))))
        right.append([label in order[:count] for count in (1, TOP)])
        progress(1)
    found, classes = np.array(overlaps, np.float32), np.array(right).T
    is_right = found >= MIN_OVERLAP
    return LocalizationErrors(
        localizer.method,
        len(found),
        float(1 - (classes[0] & is_right).mean()),
        float(1 - (classes[1] & is_right).mean()),
        float(1 - is_right.mean()),
        float(1 - classes[0].mean()),
        float(found.mean()),
        found,
    )


def mean_box_size(split: Split) -> tuple[float, float]:
    """Return the mean width and height of the largest boxes, as fractions of their images.

    They are those of the baseline `center_size` of `Localizer`.

    Args:
        split: Images with boxes.
    """
    boxes = _boxes_of(split)[:, 0]
    sides = np.stack(
        [
            tf.shape(split.load_image(tf.constant(i, tf.int64))).numpy()[:2]
            for i in range(len(split))
        ]
    )
    width, height = ((boxes[:, 2:] - boxes[:, :2]) / sides[:, ::-1]).mean(axis=0).tolist()
    return width, height


def _boxes_of(split: Split) -> np.ndarray:
    if split.boxes is None:
        raise UsageError("`split` must have boxes", expected="a dataset boxes:PATH")
    return split.boxes

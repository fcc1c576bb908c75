"""How often a trained network is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data import Augmentation, Split, batches, naming_broken_images
from cnnkit.errors import UsageError

TOP = 5


@dataclass(frozen=True)
class ClassErrors:
    """The errors on the images of one class; errors are fractions in 0..1, None without images."""

    label: str
    images: int
    top1_error: float | None
    top5_error: float | None


@dataclass(frozen=True)
class Evaluation:
    """The errors on a split, as fractions in 0..1, over all images and class by class.

    An image counts as a top-5 error when its class is not among the five most probable ones.
    """

    images: int
    top1_error: float
    top5_error: float
    classes: tuple[ClassErrors, ...]


def evaluate(
    model: keras.Model, split: Split, labels: Sequence[str], *, batch_size: int = 64
) -> Evaluation:
    """Counts the errors of `model` on the centre crop of every image.

    Args:
        model: A classifier, (n, h, h, 3) RGB 0..255 -> (n, classes).
        split: Labelled images.
        labels: Names of the classes.
        batch_size: Images that are in memory at a time.

    Raises:
        UsageError: If the model has another number of classes.
        DataError: If an image cannot be decoded.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_source
        >>> digits = load_source("digits")
        >>> model = alexnet(classes=10, input_shape=(64, 64, 3))
        >>> evaluate(model, digits.splits["test"], digits.labels).images
        359
    """
    classes = model.output_shape[-1]
    if classes != len(labels):
        raise UsageError(
            "The model and the dataset have different classes",
            expected=f"{classes} classes",
            received=f"{len(labels)}: {', '.join(labels[:5])} ...",
        )
    predict = tf.function(lambda images: model(images, training=False))
    ranks = np.empty(len(split), np.int64)
    done = 0
    centre = Augmentation(model.input_shape[1])
    with naming_broken_images(split):
        for batch in batches(split, augmentation=centre, batch_size=batch_size):
            shown = int(batch["weights"].numpy().sum())
            ranks[done : done + shown] = _ranks(
                predict(batch["images"]).numpy()[:shown], batch["labels"].numpy()[:shown]
            )
            done += shown
    return Evaluation(
        images=len(split),
        top1_error=float(np.mean(ranks >= 1)),
        top5_error=float(np.mean(ranks >= TOP)),
        classes=tuple(
            _class_errors(name, ranks[split.labels == i]) for i, name in enumerate(labels)
        ),
    )


def _ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the place of the right class in each row, 0 for the most probable."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return np.argmax(order == labels[:, None], axis=1)


def _class_errors(label: str, ranks: np.ndarray) -> ClassErrors:
    if not len(ranks):
        return ClassErrors(label, 0, None, None)
    return ClassErrors(label, len(ranks), float(np.mean(ranks >= 1)), float(np.mean(ranks >= TOP)))

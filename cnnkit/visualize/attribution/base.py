"""Which pixels an answer depends on: what the methods of tf-keras-vis share.

`cnnkit.visualize.attribution.saliency` differentiates by the pixels, `cnnkit.visualize.attribution.cam`
weights maps; `cnnkit.visualize.attribution.tf_keras_vis` stands between them and tf-keras-vis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import DataError, UsageError
from cnnkit.models.class_names import class_index
from cnnkit.visualize.attribution.tf_keras_vis import logits_after
from cnnkit.visualize.classifier import Classifier, as_classifier
from cnnkit.visualize.forward import as_image_batch, check_weights


@dataclass(frozen=True)
class Attribution:
    """How much each pixel of one image counts for one class.

    Attributes:
        method: `"saliency"`, `"smoothgrad"`, `"gradcam"`, `"gradcam++"` or `"scorecam"`.
        image: Index of the image among those that were given.
        target: The class.
        score: Its logit: what the softmax, or the sigmoid, takes.
        map: (h, w) float32, 0 or more, on no common scale: compare within a map only.
        gradient: (h, w, c) float32, signed, of which `map` is the largest absolute value over the
            channels; None where the method has none.
        layer: Name of the layer whose maps were weighted, or None.
        grid: (h', w') float32, what the method gave each place of that layer, which `map` is
            interpolated from; or None.
    """

    method: str
    image: int
    target: int
    score: float
    map: np.ndarray = field(repr=False)
    gradient: np.ndarray | None = field(default=None, repr=False)
    layer: str | None = None
    grid: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class AttributionQuery:
    """A network, images, and of each image the class that is asked about and its logit."""

    model: keras.Model
    network: Classifier
    images: np.ndarray
    targets: np.ndarray
    scores: np.ndarray
    classes: int


def prepare_query(
    model: keras.Model, images: np.ndarray, target: int | str | None, batch_size: int
) -> AttributionQuery:
    """Returns what is asked of a network.

    Raises:
        UsageError: If there is no such class, or the model or the images do not fit.
        DataError: If pixels, weights or answers are not finite.
    """
    network = as_classifier(model)
    images = as_image_batch(network.graph, images)
    class_of_all = None if target is None else class_index(model, target)
    if batch_size < 1:
        raise UsageError("A batch holds one or more", expected="1 or more", received=batch_size)
    check_weights(network.nodes)
    parts = iter_batches(len(images), batch_size)
    shown = (tf.constant(images[part]) for part in parts)
    logits = np.concatenate(
        [np.zeros((0, model.output_shape[-1]), np.float32)]
        + [logits_after(network, {0: one}).numpy() for one in shown]
    )
    for i in np.flatnonzero(~np.isfinite(logits).all(axis=1)):
        raise DataError(
            f"The network answers image {i} with values that are not finite",
            hint="Look at the image and at the weights",
        )
    targets = logits.argmax(axis=1) if class_of_all is None else np.full(len(images), class_of_all)
    scores = logits[np.arange(len(images)), targets]
    return AttributionQuery(model, network, images, targets, scores, logits.shape[1])


def iter_batches(count: int, size: int) -> list[slice]:
    """Returns `count` things as parts of `size`."""
    return [slice(start, start + size) for start in range(0, count, size)]


def target_score(targets: Sequence[int], clean: Sequence[float] | None = None):
    """Returns what makes of logits (n, classes) those of the targets, without the clean ones."""

    def score(logits):
        chosen = tf.gather(logits, tf.constant(targets, tf.int32), axis=1, batch_dims=1)
        return chosen if clean is None else chosen - tf.constant(clean, tf.float32)

    return score


def check_finite_maps(values: np.ndarray, image: int) -> None:
    """Makes sure that what is shown is numbers.

    Raises:
        DataError: If it is not.
    """
    if not np.isfinite(values).all():
        raise DataError(
            f"What is made of image {image} is not finite", hint="Look at the network's weights"
        )

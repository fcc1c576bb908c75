"""The result of the attribution methods and the steps that they share.

`cnnkit.visualize.attribution.saliency` differentiates by the pixels,
`cnnkit.visualize.attribution.cam` weights feature maps. Both run tf-keras-vis through
`cnnkit.visualize.attribution.tf_keras_vis`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from cnnkit._pixels import CLIP_FRACTION, center_on_gray, heat
from cnnkit.data.image_url import pictures_html
from cnnkit.errors import DataError
from cnnkit.models.class_names import class_index
from cnnkit.visualize.argument_checks import check_batch_size
from cnnkit.visualize.attribution.tf_keras_vis import logits_after
from cnnkit.visualize.classifier import Classifier, as_classifier
from cnnkit.visualize.forward import as_image_batch, check_weights


@dataclass(frozen=True)
class Attribution:
    """How much each pixel of one image contributes to the score of one class.

    Attributes:
        method: `"saliency"`, `"smoothgrad"`, `"gradcam"`, `"gradcam++"` or `"scorecam"`.
        image: Index of the image in the input batch.
        target: Index of the class. A network with one output has the classes 0 (no) and 1 (yes).
        score: Logit of the class, the input of the softmax or the sigmoid; of class 0 (no) its
            negative.
        map: (h, w) float32, 0 or more. The scale differs between maps: compare within one only.
        gradient: (h, w, c) float32, signed. `map` is its largest absolute value over the channels.
            None for methods without a gradient by the pixels.
        layer: Name of the layer whose feature maps were weighted, or None.
        grid: (h', w') float32, the values at the positions of that layer, from which `map` is
            interpolated; or None.
    """

    method: str
    image: int
    target: int
    score: float
    map: np.ndarray = field(repr=False)
    gradient: np.ndarray | None = field(default=None, repr=False)
    layer: str | None = None
    grid: np.ndarray | None = field(default=None, repr=False)

    def _repr_html_(self) -> str:
        """Return the map, and the signed gradient if there is one, for a notebook."""
        pictures = [(heat(self.map), "the map: white is the largest value")]
        if self.gradient is not None:
            signed = center_on_gray(self.gradient, clip_fraction=CLIP_FRACTION)
            pictures.append((signed, "the gradient: gray is 0"))
        of_layer = f", maps of {self.layer}" if self.layer else ""
        return pictures_html(
            f"{self.method} of class {self.target}{of_layer}, logit {self.score:.3g}", pictures
        )


@dataclass(frozen=True)
class AttributionQuery:
    """A classifier, images, and the target class of each image.

    Attributes:
        model: The model.
        classifier: The model's graph up to the classes.
        images: (n, h, w, c) float32.
        targets: (n,) int, the target class of each image.
        scores: (n,) float32, its logit.
        classes: Number of classes.
    """

    model: keras.Model
    classifier: Classifier
    images: np.ndarray
    targets: np.ndarray
    scores: np.ndarray
    classes: int


def prepare_query(
    model: keras.Model, images: np.ndarray, target: int | str | None, batch_size: int
) -> AttributionQuery:
    """Checks the arguments of an attribution method, and computes the logits of the images.

    Raises:
        UsageError: If there is no such class, or the model or the images do not fit.
        DataError: If pixels, weights or outputs are not finite.
    """
    classifier = as_classifier(model)
    images = as_image_batch(classifier.graph, images)
    index = None if target is None else class_index(model, target)
    check_batch_size(batch_size)
    check_weights(classifier.nodes)
    batches = (tf.constant(images[part]) for part in iter_batches(len(images), batch_size))
    logits = np.concatenate(
        [np.zeros((0, classifier.classes), np.float32)]
        + [logits_after(classifier, {0: batch}).numpy() for batch in batches]
    )
    for i in np.flatnonzero(~np.isfinite(logits).all(axis=1)):
        raise DataError(
            f"The logits of image {i} are not finite", hint="Check the image and the weights"
        )
    targets = logits.argmax(axis=1) if index is None else np.full(len(images), index)
    scores = logits[np.arange(len(images)), targets]
    return AttributionQuery(model, classifier, images, targets, scores, logits.shape[1])


def iter_batches(count: int, size: int) -> list[slice]:
    """Returns slices that divide `count` items into batches of `size`."""
    return [slice(start, start + size) for start in range(0, count, size)]


def target_score(
    targets: Sequence[int] | np.ndarray, offsets: Sequence[float] | np.ndarray | None = None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that selects the target classes' logits of (n, classes), less offsets.

    This is the form in which tf-keras-vis takes a score.
    """

    def score(logits: tf.Tensor) -> tf.Tensor:
        selected = tf.gather(logits, tf.constant(targets, tf.int32), axis=1, batch_dims=1)
        return selected if offsets is None else selected - tf.constant(offsets, tf.float32)

    return score


def check_finite_maps(values: np.ndarray, image: int) -> None:
    """Checks that the map of an image is finite.

    Raises:
        DataError: If it is not.
    """
    if not np.isfinite(values).all():
        raise DataError(
            f"The attribution map of image {image} is not finite", hint="Check the model's weights"
        )

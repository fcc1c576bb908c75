"""Invariance of features to translation, scaling and rotation (Zeiler & Fergus 2013, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from cnnkit.errors import UsageError, unknown_name
from cnnkit.models.class_names import class_index
from cnnkit.models.model_input import gray_level
from cnnkit.visualize.argument_checks import check_batch_size, check_names
from cnnkit.visualize.attribution.tf_keras_vis import logits_after
from cnnkit.visualize.classifier import Classifier, as_classifier, has_kernel
from cnnkit.visualize.forward import as_image_batch, check_weights, forward_to, non_finite_error

TRANSFORMS = ("translation", "scale", "rotation")
# Largest translation of an image of 224 pixels, read off the paper's axes: the text has no number.
MAX_TRANSLATION, SIDE = 60, 224
GRAY = 128.0


@dataclass(frozen=True)
class Invariance:
    """The effect of a transformation of images on their features and class probabilities.

    Attributes:
        transform: `"translation"`, `"scale"` or `"rotation"`.
        amounts: (m,), pixels downwards, factors, or degrees counter-clockwise.
        layers: Names of the layers, usually a lower and an upper one.
        distances: (layers, n, m), Euclidean distances between the features of an image and of the
            transformed image.
        norms: (layers, n), Euclidean norms of the untransformed image's features. Distances divided
            by them can be compared between layers.
        labels: (n,), the class of each image whose probability is measured.
        probabilities: (n, m), the probability of that class.
    """

    transform: str
    amounts: np.ndarray
    layers: tuple[str, ...]
    distances: np.ndarray
    norms: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def transform_amounts(transform: str, side: int) -> np.ndarray:
    """Returns the paper's range of a transformation for images of `side` pixels.

    Raises:
        UsageError: If there is no such transformation.

    Example:
        >>> transform_amounts("translation", 224)[[0, -1]], transform_amounts("scale", 224)[[0, -1]]
        (array([-60.,  60.]), array([1. , 1.8]))
    """
    if transform == "translation":
        # Whole pixels, so that nothing is interpolated.
        most = round(MAX_TRANSLATION * side / SIDE)
        step = max(1, round(2 * most / 24))
        return np.arange(-(most // step) * step, most + 1, step).astype(float)
    if transform == "scale":
        return np.linspace(1, 1.8, 17)
    if transform == "rotation":
        return np.arange(0.0, 351.0, 10.0)
    raise unknown_name("transformation", transform, TRANSFORMS)


def transform_image(
    image: np.ndarray, transform: str, amount: float, fill: float = GRAY
) -> np.ndarray:
    """Translates, scales or rotates an image about its center, with bilinear interpolation.

    Args:
        image: (h, w, 3).
        transform: `"translation"`, `"scale"` or `"rotation"`.
        amount: Pixels downwards, a factor, or degrees counter-clockwise.
        fill: Value of pixels from outside of the image.

    Returns:
        (h, w, 3) float32.

    Raises:
        UsageError: If there is no such transformation, or a factor is not above zero.

    Example:
        >>> import numpy as np
        >>> from cnnkit.visualize import transform_image
        >>> image = np.arange(4.0).reshape(2, 2, 1)
        >>> transform_image(image, "translation", 1, fill=9)[..., 0]
        array([[9., 9.],
               [0., 1.]], dtype=float32)
        >>> transform_image(image, "rotation", 90)[..., 0]
        array([[1., 3.],
               [0., 2.]], dtype=float32)
    """
    matrix, shift = np.eye(2), np.zeros(2)
    if transform == "translation":
        shift[0] = amount
    elif transform == "scale":
        if not amount > 0:
            raise UsageError("`amount` of a scale must be above 0", received=amount)
        matrix = matrix / amount
    elif transform == "rotation":
        angle = np.deg2rad(amount)
        # Rounded, so that quarter turns hit whole pixels.
        cosine, sine = np.round([np.cos(angle), np.sin(angle)], 12)
        matrix = np.array([[cosine, sine], [-sine, cosine]])
    else:
        raise unknown_name("transformation", transform, TRANSFORMS)
    center = (np.array(image.shape[:2]) - 1) / 2
    # Maps each pixel of the result to its source: rows count downwards.
    offset = center - matrix @ (center + shift)
    channels = [
        ndimage.affine_transform(
            np.asarray(image[..., channel], np.float64), matrix, offset,
            order=1, mode="constant", cval=fill,
        )
        for channel in range(image.shape[-1])
    ]  # fmt: skip
    return np.stack(channels, axis=-1).astype(np.float32)


def invariance(
    model: keras.Model,
    images: np.ndarray,
    transform: str,
    *,
    layers: Sequence[str] | None = None,
    labels: Sequence[int | str] | None = None,
    amounts: Sequence[float] | None = None,
    fill: float | None = None,
    batch_size: int = 16,
) -> Invariance:
    """Measures the change of features and class probability under a transformation of images.

    Images are transformed before the model's own preprocessing; pixels from outside of the image
    are `fill`. Distances are Euclidean, over all units of a layer.

    Args:
        model: A classifier, as `cnnkit.visualize.saliency` takes it.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them.
        transform: `"translation"` (vertical), `"scale"` or `"rotation"`.
        layers: Names of layers; None takes the first and the last but one layer with weights:
            layers 1 and 7 of AlexNet and ZFNet.
        labels: True class of each image, by number or name; None takes the most probable one of
            the untransformed image. A network with one output has the classes 0 (no) and 1 (yes).
        amounts: Pixels downwards, factors, or degrees counter-clockwise; None takes the paper's
            range: see `transform_amounts`.
        fill: Value of pixels from outside of the image; None takes the middle of the range that
            the model expects, or that the images have: 128, 0.5 or 0.
        batch_size: Images at a time.

    Raises:
        UsageError: If a layer, a class or the transformation does not exist, or the model is not a
            classifier.
        DataError: If features are not finite.

    Example:
        >>> import numpy as np
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import invariance
        >>> model = zfnet(input_shape=(64, 64, 3), classes=10, hidden_units=16)
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> found = invariance(model, image, "translation", amounts=[0, 4, 8])
        >>> found.layers, found.distances.shape
        (('conv1', 'fc7'), (2, 1, 3))
    """
    classifier = as_classifier(model)
    graph = classifier.graph
    images = as_image_batch(graph, images)
    fill = gray_level(graph, images) if fill is None else fill
    if labels is not None and len(labels) != len(images):
        raise UsageError(
            "`labels` must hold one class for every image",
            expected=f"{len(images)} classes",
            received=list(labels),
        )
    check_batch_size(batch_size)
    if layers is not None:
        check_names("layers", layers)
    names = tuple(layers) if layers is not None else _first_and_last_features(classifier)
    wanted = [graph.node(name) for name in names]
    nodes = graph.ancestors(*wanted, classifier.end)
    check_weights(nodes)
    chosen = transform_amounts(transform, images.shape[1]) if amounts is None else amounts
    steps = np.asarray(chosen, float)

    @tf.function(autograph=False)
    def forward(batch: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        features = forward_to(nodes, batch, wanted)
        count = tf.shape(batch)[0]
        flat = [tf.cast(tf.reshape(one, (count, -1)), tf.float32) for one in features]
        return flat, logits_after(classifier, {0: batch})

    distances = np.zeros((len(names), len(images), len(steps)), np.float32)
    norms = np.zeros((len(names), len(images)), np.float32)
    probabilities = np.zeros((len(images), len(steps)), np.float32)
    classes = np.zeros(len(images), int)
    for i, image in enumerate(images):
        originals, logits = forward(tf.constant(image[None]))
        classes[i] = _class_of_image(model, labels, i, logits.numpy()[0])
        for start in range(0, len(steps), batch_size):
            part = slice(start, start + batch_size)
            transformed = np.stack(
                [transform_image(image, transform, amount, fill) for amount in steps[part]]
            )
            features, logits = forward(tf.constant(transformed))
            probabilities[i, part] = classifier.probabilities(logits.numpy())[:, classes[i]]
            for n, (one, original) in enumerate(zip(features, originals, strict=True)):
                distances[n, i, part] = tf.norm(one - original, axis=1).numpy()
                norms[n, i] = tf.norm(original).numpy()
        finite = np.isfinite(distances[:, i]).all(axis=1)
        if not finite.all():
            raise non_finite_error(names[int(np.argmin(finite))], i)
    return Invariance(transform, steps, names, distances, norms, classes, probabilities)


def _first_and_last_features(classifier: Classifier) -> tuple[str, str]:
    weighted = [node.layer.name for node in classifier.nodes if has_kernel(node)]
    if len(weighted) < 2:
        raise UsageError(
            f"Model {classifier.graph.name!r} has only one layer with weights",
            hint="Name the layers",
        )
    return weighted[0], weighted[-2]


def _class_of_image(
    model: keras.Model, labels: Sequence[int | str] | None, image: int, logits: np.ndarray
) -> int:
    if labels is None:
        return int(np.argmax(logits))
    return class_index(model, labels[image])

"""How far a network's features move when an image does (Zeiler & Fergus 2013, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from cnnkit.errors import DataError, UsageError, unknown_name
from cnnkit.models.graph import Graph, build_graph
from cnnkit.visualize.forward import as_image_batch, check_supports_rule, check_weights, forward_to

TRANSFORMS = ("translation", "scale", "rotation")
# On an image of 224 pixels, as read off the paper's axes; the paper does not state them.
REACH, SIDE = 60, 224
GRAY = 128.0


@dataclass(frozen=True)
class Invariance:
    """What a transformation of images does to their features.

    Attributes:
        transform: `"translation"`, `"scale"` or `"rotation"`.
        amounts: (m,), pixels downwards, factors, or degrees counter-clockwise.
        layers: Names of the layers, a lower and an upper one as a rule.
        distances: (layers, n, m), Euclidean, between an image's features and those of the
            transformed one.
        norms: (layers, n), the length of the untransformed image's features: distances divided by
            them can be compared between layers.
        labels: (n,), the classes whose probabilities these are.
        probabilities: (n, m).
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

    Example:
        >>> transform_amounts("translation", 224)[[0, -1]], transform_amounts("scale", 224)[[0, -1]]
        (array([-60.,  60.]), array([1. , 1.8]))
    """
    if transform == "translation":
        # Whole pixels, so that nothing is interpolated.
        reach = round(REACH * side / SIDE)
        step = max(1, round(2 * reach / 24))
        return np.arange(-(reach // step) * step, reach + 1, step).astype(float)
    if transform == "scale":
        return np.linspace(1, 1.8, 17)
    if transform == "rotation":
        return np.arange(0.0, 351.0, 10.0)
    raise unknown_name("transformation", transform, TRANSFORMS)


def transform_image(
    image: np.ndarray, transform: str, amount: float, fill: float = GRAY
) -> np.ndarray:
    """Moves an image downwards, enlarges it or turns it, about its center; bilinear.

    Args:
        image: (h, w, 3).
        transform: `"translation"`, `"scale"` or `"rotation"`.
        amount: Pixels downwards, a factor, or degrees counter-clockwise.
        fill: What comes in from outside.

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
            raise UsageError("A scale is a factor", expected="more than 0", received=amount)
        matrix = matrix / amount
    elif transform == "rotation":
        angle = np.deg2rad(amount)
        # Rounded, so that quarter turns hit whole pixels.
        cosine, sine = np.round([np.cos(angle), np.sin(angle)], 12)
        matrix = np.array([[cosine, sine], [-sine, cosine]])
    else:
        raise unknown_name("transformation", transform, TRANSFORMS)
    center = (np.array(image.shape[:2]) - 1) / 2
    # Where each pixel of the result is read: rows count downwards.
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
    labels: Sequence[int] | None = None,
    amounts: Sequence[float] | None = None,
    fill: float = GRAY,
    batch_size: int = 16,
) -> Invariance:
    """Measures how features and class probability change when images are moved, scaled or turned.

    Images are transformed before the network's own preprocessing; what comes in from outside is
    `fill`. Distances are Euclidean, over all units of a layer.

    Args:
        model: A classifier, as `cnnkit.visualize.deconvnet.project` takes it. Where it does not end in a
            softmax, its outputs are taken as logits.
        images: (n, h, w, 3) or (h, w, 3), as the model takes them.
        transform: `"translation"` (vertical), `"scale"` or `"rotation"`.
        layers: Names of layers; None is the first that has weights and the last but one, layers 1
            and 7 of AlexNet and ZFNet.
        labels: The true class of each image; None is the most probable one of the image as it is.
        amounts: Pixels downwards, factors, or degrees counter-clockwise; None is `transform_amounts`.
        fill: 0..255.
        batch_size: Images at a time.

    Raises:
        UsageError: If a layer, a class or the transformation does not exist, or the model is no
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
    graph = build_graph(model)
    images = as_image_batch(graph, images)
    names = tuple(layers) if layers is not None else _first_and_last(graph)
    wanted = [*(graph.node(name) for name in names), graph.output]
    nodes = graph.ancestors(*wanted)
    check_supports_rule(nodes, "gradient")
    check_weights(nodes)
    classes = model.output_shape
    if len(classes) != 2:
        raise UsageError(
            f"Model {model.name!r} gives no class probabilities",
            expected="a classifier, (n, classes)",
            received=classes,
        )
    if amounts is None:
        amounts = transform_amounts(transform, images.shape[1])
    amounts = np.asarray(amounts, float)

    @tf.function(autograph=False)
    def look(shown):
        *features, logits = forward_to(nodes, shown, wanted)
        count = tf.shape(shown)[0]
        flat = [tf.cast(tf.reshape(one, (count, -1)), tf.float32) for one in features]
        return flat, tf.nn.softmax(tf.cast(logits, tf.float32))

    distances = np.zeros((len(names), len(images), len(amounts)), np.float32)
    norms = np.zeros((len(names), len(images)), np.float32)
    probabilities = np.zeros((len(images), len(amounts)), np.float32)
    chosen = np.zeros(len(images), int)
    for i, image in enumerate(images):
        originals, before = look(tf.constant(image[None]))
        chosen[i] = _label(labels, i, before.numpy()[0])
        for start in range(0, len(amounts), batch_size):
            part = slice(start, start + batch_size)
            moved = np.stack([transform_image(image, transform, a, fill) for a in amounts[part]])
            features, after = look(tf.constant(moved))
            probabilities[i, part] = after.numpy()[:, chosen[i]]
            for n, (one, original) in enumerate(zip(features, originals, strict=True)):
                distances[n, i, part] = tf.norm(one - original, axis=1).numpy()
                norms[n, i] = tf.norm(original).numpy()
        if not np.isfinite(distances[:, i]).all():
            broken = names[int(np.argmin(np.isfinite(distances[:, i]).all(axis=1)))]
            raise DataError(
                f"Layer {broken!r} answers image {i} with values that are not finite",
                hint="Look at the image and at the weights up to that layer",
            )
    return Invariance(transform, amounts, names, distances, norms, chosen, probabilities)


def _first_and_last(graph: Graph) -> tuple[str, str]:
    weighted = [
        node.layer.name
        for node in graph.nodes
        if isinstance(node.layer, keras.layers.Conv2D | keras.layers.Dense)
    ]
    if len(weighted) < 2:
        raise UsageError(
            f"Model {graph.name!r} has no layer below its last one", hint="Name the layers"
        )
    return weighted[0], weighted[-2]


def _label(labels: Sequence[int] | None, image: int, probabilities: np.ndarray) -> int:
    if labels is None:
        return int(np.argmax(probabilities))
    if len(labels) <= image or not 0 <= labels[image] < len(probabilities):
        raise UsageError(
            f"Image {image} has no class of the network's",
            expected=f"one label for each image, 0 to {len(probabilities) - 1}",
            received=list(labels),
        )
    return int(labels[image])

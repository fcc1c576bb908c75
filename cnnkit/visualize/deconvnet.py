"""The deconvnet: what in an image made a unit fire (Zeiler & Fergus 2013, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.layers import backward_rule
from cnnkit.models import find_layer, logits_of
from cnnkit.models.names import is_softmax
from cnnkit.visualize.support import check_rule_aware


@dataclass(frozen=True)
class Projection:
    """One unit of one image, projected down to the pixels.

    Attributes:
        layer: Name of the layer.
        unit: Feature map of a convolution or pooling layer, or unit of a dense layer.
        image: Index of the image among those that were given.
        position: (row, column) in the feature map, () in a dense layer.
        activation: What the unit answered there.
        projection: (h, w, 3) float32, may be negative: pixel space is not rectified.
        rule: The backward rule.
    """

    layer: str
    unit: int
    image: int
    position: tuple[int, ...]
    activation: float
    projection: np.ndarray
    rule: str

    @property
    def where(self) -> str:
        """The position in words, empty in a dense layer."""
        return " at row {}, column {}".format(*self.position) if self.position else ""


def deconvnet(
    model: keras.Model,
    images: np.ndarray,
    layer: str,
    unit: int | Sequence[int] | None = None,
    position: tuple[int, int] | None = None,
    *,
    rule: str = "deconvnet",
    batch_size: int = 16,
) -> list[Projection]:
    """Projects single activations back to the pixels.

    All other activations of the layer are set to zero and the one to 1; on the way down, layer by
    layer, values go to where the maximum of their pooling window was (windows that share a maximum
    add), the signal is rectified, and the transposed filters are applied. Biases are left out and
    normalization is passed through. The model is left as it was.

    Args:
        model: A network of `cnnkit.models`, or one of the layers these are made of.
        images: (n, h, w, 3) or (h, w, 3) RGB in 0..255.
        layer: Name of a layer. At a softmax the pass starts from the logits.
        unit: One unit, several, or None for the strongest one of each image.
        position: (row, column) in the feature map; None is where the unit is strongest, the first
            in row-major order among equals.
        rule: `"deconvnet"`, `"guided"` (Springenberg et al. 2015) or `"gradient"`.
        batch_size: Projections that are computed at a time.

    Returns:
        One `Projection` for every image and unit, image by image.

    Raises:
        UsageError: If the layer, the unit, the position or the rule does not exist, the images do
            not fit, or a layer on the way cannot follow the rule.

    Example:
        >>> import numpy as np
        >>> from cnnkit import alexnet
        >>> from cnnkit.visualize import deconvnet
        >>> model = alexnet(input_shape=(64, 64, 3), classes=10, initializer="glorot")
        >>> image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
        >>> deconvnet(model, image, "conv5", unit=7)[0].projection.shape
        (64, 64, 3)
    """
    network = _up_to(model, layer)
    with backward_rule(rule):
        check_rule_aware(network, rule)
    images = _checked_images(model, images)
    chosen = []
    for start in range(0, len(images), batch_size):
        maps = network(images[start : start + batch_size], training=False)
        for i, values in enumerate(keras.ops.convert_to_numpy(maps), start=start):
            chosen += [(i, *_place(values, u, position)) for u in _units(values, unit, layer)]

    results = []
    for start in range(0, len(chosen), batch_size):
        part = chosen[start : start + batch_size]
        pixels = _project(network, images, [(i, *place) for i, place, _ in part], rule)
        results += [
            Projection(layer, place[-1], i, place[:-1], activation, projection, rule)
            for (i, place, activation), projection in zip(part, pixels, strict=True)
        ]
    return results


def _up_to(model: keras.Model, name: str) -> keras.Model:
    """Returns the part of the model up to a layer; the layers are shared, not copied."""
    layer = find_layer(model, name)
    return keras.Model(model.input, logits_of(model) if is_softmax(layer) else layer.output)


def _checked_images(model: keras.Model, images: np.ndarray) -> np.ndarray:
    images = np.asarray(images, np.float32)
    if images.ndim == 3:
        images = images[None]
    expected = model.input_shape[1:]
    fits = images.ndim == 4 and all(
        want is None or want == have for want, have in zip(expected, images.shape[1:], strict=True)
    )
    if not fits:
        raise UsageError(
            "The images do not fit the network",
            expected=f"(n, {', '.join('any' if side is None else str(side) for side in expected)})",
            received=images.shape,
        )
    return images


def _units(values: np.ndarray, unit: int | Sequence[int] | None, layer: str) -> list[int]:
    count = values.shape[-1]
    if unit is None:
        return [int(np.argmax(values.reshape(-1, count).max(axis=0)))]
    units = [unit] if isinstance(unit, int | np.integer) else list(unit)
    for one in units:
        if not 0 <= one < count:
            raise UsageError(
                f"Layer {layer!r} has no unit {one}", expected=f"0 to {count - 1}", received=one
            )
    return [int(one) for one in units]


def _place(
    values: np.ndarray, unit: int, position: tuple[int, int] | None
) -> tuple[tuple[int, ...], float]:
    """Returns where in the layer's output the unit is looked at, (..., unit), and its value."""
    spatial = values.shape[:-1]
    if position is None:
        where = np.unravel_index(int(np.argmax(values[..., unit])), spatial) if spatial else ()
        position = tuple(int(index) for index in where)
    elif len(position) != len(spatial) or any(
        not 0 <= index < side for index, side in zip(position, spatial, strict=True)
    ):
        raise UsageError(
            "There is no such position in the feature map",
            expected=f"within {' x '.join(map(str, spatial)) or 'no map: a dense layer'}",
            received=position,
        )
    place = (*map(int, position), unit)
    return place, float(values[place])


def _project(
    network: keras.Model, images: np.ndarray, places: list[tuple[int, ...]], rule: str
) -> np.ndarray:
    """Returns (len(places), h, w, 3); a place is an image and an index into its activations."""
    pixels = tf.constant(images[[place[0] for place in places]])
    index = tf.constant([(row, *place[1:]) for row, place in enumerate(places)])
    # Eager on purpose: a compiled pass picks other switches among equal maxima, and a traced one
    # would keep the rule it was traced under.
    with backward_rule(rule), tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(pixels)
        # Images do not interact, so the gradient of the sum holds every image's own.
        score = tf.reduce_sum(tf.gather_nd(network(pixels, training=False), index))
    return tape.gradient(score, pixels).numpy()

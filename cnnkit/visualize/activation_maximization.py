"""Images made to excite a unit: gradient ascent from noise (Simonyan et al. 2013, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import DataError, UsageError
from cnnkit.models.class_names import class_index
from cnnkit.models.graph import Graph, build_graph
from cnnkit.visualize.attribution.tf_keras_vis import (
    import_tf_keras_vis,
    model_up_to,
    without_softmax,
)
from cnnkit.visualize.forward import check_supports_rule, check_weights, validate_position

INPUT_RANGE = (0.0, 255.0)


@dataclass(frozen=True)
class SynthesizedImage:
    """An image that was made to excite one unit.

    Attributes:
        layer: Name of the layer.
        unit: Feature map of a convolution or pooling layer, or unit of a dense layer.
        image: (h, w, c) float32, within the range of the input.
        activation: What the unit answers to it before its rectifier or softmax: below zero it would
            not fire.
        start: What it answered to the noise that the image was made from.
        position: (row, column) in the feature map, () in a dense layer.
    """

    layer: str
    unit: int
    image: np.ndarray = field(repr=False)
    activation: float
    start: float
    position: tuple[int, ...]


def activation_maximization(
    model: keras.Model,
    layer: str | None = None,
    unit: int | str | Sequence[int | str] = 0,
    *,
    position: tuple[int, int] | None = None,
    steps: int = 200,
    rate: float = 1.0,
    smoothness: float = 1.0,
    jitter: int = 4,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    input_range: tuple[float, float] = INPUT_RANGE,
) -> list[SynthesizedImage]:
    """Makes images that excite units, step by step along the gradient.

    The score is what the unit makes before its rectifier or softmax, which would leave no way up,
    less the image's total variation. What the unit likes most is shown, not what is like
    photographs; another seed gives another image.

    Args:
        model: A functional or sequential model over images.
        layer: Name of a layer; None is the last one.
        unit: One unit, or several; where the layer is the last one and classes have names, these
            too.
        position: (row, column) in the feature map; None is its middle.
        steps: Steps along the gradient.
        rate: Step, in values of pixels, once RMSprop has settled; the first are larger.
        smoothness: How much total variation, the sum of absolute differences between neighbors
            divided by the number of values, takes off the score.
        jitter: The image is rolled by up to so many pixels in each step, and back.
        seed: Of the noise and the jitter.
        image_size: Side, or (h, w), of the image for a model that takes images of any size.
        input_range: Smallest and largest value of a pixel. The noise lies about its middle.

    Returns:
        One `SynthesizedImage` for every unit.

    Raises:
        UsageError: If the layer, the unit or the position does not exist, the model takes images
            of any size and none is given, or a number is out of its range.
        DataError: If the noise does not reach a unit at all, or values are not finite.

    Example:
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import activation_maximization
        >>> model = zfnet(input_shape=(64, 64, 3), include_top=False, initializer="glorot")
        >>> [made] = activation_maximization(model, "conv1", 3, steps=3)
        >>> made.image.shape, made.layer, made.unit
        ((64, 64, 3), 'conv1', 3)
    """
    graph = build_graph(model)
    end = graph.output if layer is None else graph.node(layer)
    nodes = graph.ancestors(end)
    check_supports_rule(nodes, "gradient")
    check_weights(nodes)
    low, high = input_range
    for name, value, fits in (
        ("steps", steps, steps >= 1),
        ("rate", rate, 0 < rate < np.inf),
        ("smoothness", smoothness, 0 <= smoothness < np.inf),
        ("jitter", jitter, jitter >= 0),
        ("input range", input_range, -np.inf < low < high < np.inf),
    ):
        if not fits:
            raise UsageError(f"The {name} is out of its range", received=value)
    shape = _shape(graph, image_size)
    made = tuple(without_softmax(nodes, {0: tf.zeros((1, *shape))}).shape[1:])
    if len(made) not in (1, 3):
        raise UsageError(f"Layer {end.layer.name!r} has no units", received=made)
    position = _position(position, made[:-1])
    cut = model_up_to(nodes, shape, made)
    ascent = import_tf_keras_vis("activation_maximization").ActivationMaximization(cut)
    # An empty list would be taken for one of an older kind: of weight 0 it is still there.
    smooth = import_tf_keras_vis("activation_maximization.regularizers").TotalVariation2D(
        smoothness
    )
    results = []
    for one in _units(model, graph, end, unit, made[-1]):
        # The same noise for every unit: what differs between images is the units' doing.
        random = np.random.default_rng(seed)
        noise = random.normal((low + high) / 2, (high - low) / 50, shape).astype(np.float32)
        noise = np.clip(noise, low, high)

        def score(values, unit=one):
            return values[(slice(None), *position, unit)]

        before = _reached(cut, score, noise, end.layer.name, one)
        moved = _Jitter(random, jitter, low, high)
        image = ascent(
            score, noise[None], steps=steps, input_range=(low, high), input_modifiers=[moved],
            regularizers=[smooth],
            optimizer=keras.optimizers.RMSprop(float(rate), rho=0.999),
        )  # fmt: skip
        image = np.clip(moved.back(np.asarray(image))[0], low, high)
        after = float(score(cut([tf.constant(image[None])]))[0])
        if not (np.isfinite(image).all() and np.isfinite(after)):
            raise DataError(
                f"The image for unit {one} of {end.layer.name} is not finite",
                hint="Look at the network's weights, or take a smaller rate",
            )
        results.append(SynthesizedImage(end.layer.name, one, image, after, before, position))
    return results


class _Jitter:
    """Rolls images at random, back before it rolls again; keeps them within their range."""

    def __init__(self, random: np.random.Generator, reach: int, low: float, high: float) -> None:
        self.random, self.reach = random, reach
        self.low, self.high = low, high
        self.shift = np.zeros(2, int)

    def __call__(self, images):
        images = self.back(images)
        self.shift = self.random.integers(-self.reach, self.reach + 1, 2)
        return tf.roll(tf.clip_by_value(images, self.low, self.high), self.shift, (1, 2))

    def back(self, images):
        images = np.roll(images, -self.shift, (1, 2))
        self.shift = np.zeros(2, int)
        return images


def _reached(model, score, noise: np.ndarray, layer: str, unit: int) -> float:
    """Returns the score of the noise, and makes sure that there is a way up from it."""
    shown = tf.constant(noise[None])
    with tf.GradientTape() as tape:
        tape.watch(shown)
        [value] = score(model([shown]))
    gradient = tape.gradient(value, shown)
    if gradient is None or not np.any(gradient):
        raise DataError(
            f"The noise does not reach unit {unit} of {layer}: there is no way up from it",
            received=f"an activation of {float(value):.3g} and a gradient of zero",
            hint="Take another seed, or look whether the unit ever fires",
        )
    return float(value)


def _shape(graph: Graph, image_size: int | tuple[int, int] | None) -> tuple[int, ...]:
    height, width, channels = graph.image_shape
    if image_size is not None:
        sides = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
        if (height or sides[0], width or sides[1]) != sides:
            raise UsageError(
                f"Model {graph.name!r} takes images of one size",
                expected=f"{height} x {width}",
                received=f"{sides[0]} x {sides[1]}",
            )
        height, width = sides
    if None in (height, width):
        raise UsageError(
            f"Model {graph.name!r} takes images of any size", hint="Give the size of the image"
        )
    return height, width, channels


def _position(position: tuple[int, int] | None, sides: tuple[int, ...]) -> tuple[int, ...]:
    if position is None:
        return tuple(side // 2 for side in sides)
    return validate_position(position, sides)


def _units(model, graph: Graph, end, unit, count: int) -> list[int]:
    units = [unit] if isinstance(unit, int | str | np.integer) else list(unit)
    if end is graph.nodes[-1] and len(model.output_shape) == 2:
        return [class_index(model, one) for one in units]
    numbers = []
    for one in units:
        if not str(one).isdecimal() or not 0 <= int(one) < count:
            raise UsageError(
                f"Layer {end.layer.name!r} has no unit {one}",
                expected=f"0 to {count - 1}",
                received=one,
            )
        numbers.append(int(one))
    return numbers

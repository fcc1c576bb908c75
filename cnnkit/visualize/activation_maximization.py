"""Activation maximization: synthesized images that excite a unit.

Gradient ascent from noise (Simonyan et al. 2013, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import DataError, UsageError
from cnnkit.models.class_names import class_index
from cnnkit.models.graph import Graph, Node, build_graph
from cnnkit.visualize.attribution.tf_keras_vis import (
    import_tf_keras_vis,
    model_up_to,
    without_activation,
)
from cnnkit.visualize.forward import check_supports_rule, check_weights, validate_position

INPUT_RANGE = (0.0, 255.0)


@dataclass(frozen=True)
class SynthesizedImage:
    """A synthesized image that excites one unit.

    Attributes:
        layer: Name of the layer.
        unit: Feature map of a convolution or pooling layer, or unit of a dense layer.
        image: (h, w, c) float32, within the range of the input.
        activation: Activation of the unit before its ReLU or softmax; below zero it does not fire.
        start: Its activation for the noise that the ascent started from.
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
    """Synthesizes images that excite units, by gradient ascent from noise.

    The score is the unit's activation before its ReLU or softmax, which would stop the gradient,
    minus the image's total variation. The images show the strongest stimulus of a unit and need not
    look like photographs; another seed gives another image.

    Args:
        model: A functional or sequential model over images.
        layer: Name of a layer; None takes the last one.
        unit: One unit, or several. In the last layer, a class name names a unit too.
        position: (row, column) in the feature map; None takes its center.
        steps: Steps of the ascent.
        rate: Learning rate: the size of a step in pixel values once RMSprop has settled; the first
            steps are larger.
        smoothness: Weight of the total variation, the sum of absolute differences between neighbors
            divided by the number of values.
        jitter: Largest random shift of the image in each step, in pixels; it is undone afterwards.
        seed: Seed of the noise and the jitter.
        image_size: Side, or (h, w), of the image for a model that takes images of any size.
        input_range: Smallest and largest value of a pixel. The noise is centered in the range.

    Returns:
        One `SynthesizedImage` for every unit.

    Raises:
        UsageError: If the layer, the unit or the position does not exist, `image_size` is missing
            for a model that takes images of any size, or a number is out of its range.
        DataError: If a unit has no gradient at the noise, or values are not finite.

    Example:
        >>> from cnnkit import zfnet
        >>> from cnnkit.visualize import activation_maximization
        >>> model = zfnet(input_shape=(64, 64, 3), include_top=False, initializer="glorot")
        >>> [result] = activation_maximization(model, "conv1", 3, steps=3)
        >>> result.image.shape, result.layer, result.unit
        ((64, 64, 3), 'conv1', 3)
    """
    graph = build_graph(model)
    end = graph.output if layer is None else graph.node(layer)
    nodes = graph.ancestors(end)
    check_supports_rule(nodes, "gradient")
    check_weights(nodes)
    _check_numbers(steps, rate, smoothness, jitter, input_range)
    shape = _image_shape(graph, image_size)
    output_shape = tuple(without_activation(nodes, {0: tf.zeros((1, *shape))}).shape[1:])
    if len(output_shape) not in (1, 3):
        raise UsageError(
            f"Layer {end.layer.name!r} has no units",
            expected="feature maps (h, w, c) or a vector",
            received=output_shape,
        )
    index = _unit_position(position, output_shape[:-1])
    ascend = _gradient_ascent(
        model_up_to(nodes, shape, output_shape), shape, steps, rate, smoothness, jitter, seed,
        input_range,
    )  # fmt: skip
    return [
        ascend(end.layer.name, one, index)
        for one in _unit_indices(graph, end, unit, output_shape[-1])
    ]


def _check_numbers(
    steps: int,
    rate: float,
    smoothness: float,
    jitter: int,
    input_range: tuple[float, float],
) -> None:
    low, high = input_range
    for name, value, fits, expected in (
        ("steps", steps, steps >= 1, "at least 1"),
        ("rate", rate, 0 < rate < np.inf, "above 0 and finite"),
        ("smoothness", smoothness, 0 <= smoothness < np.inf, "0 or more and finite"),
        ("jitter", jitter, jitter >= 0, "0 or more"),
        ("input_range", input_range, -np.inf < low < high < np.inf, "(low, high) with low < high"),
    ):
        if not fits:
            raise UsageError(f"`{name}` is out of its range", expected=expected, received=value)


def _gradient_ascent(
    model: keras.Model,
    shape: tuple[int, ...],
    steps: int,
    rate: float,
    smoothness: float,
    jitter: int,
    seed: int,
    input_range: tuple[float, float],
) -> Callable[[str, int, tuple[int, ...]], SynthesizedImage]:
    """Returns a function of layer name, unit and position that synthesizes an image.

    `model` maps images of `shape` to the layer's output before its activation. The other arguments
    are those of `activation_maximization`.
    """
    low, high = input_range
    ascent = import_tf_keras_vis("activation_maximization").ActivationMaximization(model)
    # tf-keras-vis 0.8.7 takes an empty list of regularizers for its older form, so this one is
    # passed with weight 0 too.
    total_variation = import_tf_keras_vis("activation_maximization.regularizers").TotalVariation2D(
        smoothness
    )

    def ascend(layer: str, unit: int, position: tuple[int, ...]) -> SynthesizedImage:
        # The same noise for every unit: the images differ because of the units only.
        random = np.random.default_rng(seed)
        noise = random.normal((low + high) / 2, (high - low) / 50, shape).astype(np.float32)
        noise = np.clip(noise, low, high)

        def score(values: tf.Tensor) -> tf.Tensor:
            return values[(slice(None), *position, unit)]

        start = _start_score(model, score, noise, layer, unit)
        shift = _Jitter(random, jitter, low, high)
        image = ascent(
            score, noise[None], steps=steps, input_range=(low, high), input_modifiers=[shift],
            regularizers=[total_variation],
            optimizer=keras.optimizers.RMSprop(float(rate), rho=0.999),
        )  # fmt: skip
        image = np.clip(shift.undo(np.asarray(image))[0], low, high)
        activation = float(score(model([tf.constant(image[None])]))[0])
        if not (np.isfinite(image).all() and np.isfinite(activation)):
            raise DataError(
                f"The image for unit {unit} of {layer} is not finite",
                hint="Check the model's weights, or lower `rate`",
            )
        return SynthesizedImage(layer, unit, image, activation, start, position)

    return ascend


class _Jitter:
    """Rolls images at random, after undoing the previous roll, and clips them to their range."""

    def __init__(self, random: np.random.Generator, most: int, low: float, high: float) -> None:
        self.random, self.most = random, most
        self.low, self.high = low, high
        self.shift = np.zeros(2, int)

    def __call__(self, images: np.ndarray) -> tf.Tensor:
        images = self.undo(images)
        self.shift = self.random.integers(-self.most, self.most + 1, 2)
        return tf.roll(tf.clip_by_value(images, self.low, self.high), self.shift, (1, 2))

    def undo(self, images: np.ndarray) -> np.ndarray:
        images = np.roll(images, -self.shift, (1, 2))
        self.shift = np.zeros(2, int)
        return images


def _start_score(
    model: keras.Model,
    score: Callable[[tf.Tensor], tf.Tensor],
    noise: np.ndarray,
    layer: str,
    unit: int,
) -> float:
    """Returns the score of the noise, and checks that it has a gradient there."""
    images = tf.constant(noise[None])
    with tf.GradientTape() as tape:
        tape.watch(images)
        [value] = score(model([images]))
    gradient = tape.gradient(value, images)
    if gradient is None or not np.any(gradient):
        raise DataError(
            f"Unit {unit} of {layer} has no gradient at the noise, so the ascent cannot start",
            received=f"an activation of {float(value):.3g} and a gradient of zero",
            hint="Try another seed, or check that the unit fires for any image",
        )
    return float(value)


def _image_shape(graph: Graph, image_size: int | tuple[int, int] | None) -> tuple[int, int, int]:
    height, width, channels = graph.image_shape
    if image_size is not None:
        sides = tuple(image_size) if isinstance(image_size, Iterable) else (image_size, image_size)
        if (height or sides[0], width or sides[1]) != sides:
            raise UsageError(
                f"`image_size` must be the input size of model {graph.name!r}",
                expected=f"{height} x {width}",
                received=f"{sides[0]} x {sides[1]}",
            )
        height, width = sides
    if height is None or width is None:
        raise UsageError(f"`image_size` is required: model {graph.name!r} takes images of any size")
    return height, width, channels


def _unit_position(position: tuple[int, int] | None, sides: tuple[int, ...]) -> tuple[int, ...]:
    if position is None:
        return tuple(side // 2 for side in sides)
    return validate_position(position, sides)


def _unit_indices(
    graph: Graph, end: Node, unit: int | str | Sequence[int | str], count: int
) -> list[int]:
    units = [unit] if isinstance(unit, int | str | np.integer) else list(unit)
    if end is graph.output and len(graph.model.output_shape) == 2:
        return [class_index(graph.model, one) for one in units]
    indices = []
    for one in units:
        if not str(one).isdecimal() or not 0 <= int(one) < count:
            raise UsageError(
                f"Layer {end.layer.name!r} has no unit {one}",
                expected=f"0 to {count - 1}",
                received=one,
            )
        indices.append(int(one))
    return indices

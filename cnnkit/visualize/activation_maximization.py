"""Activation maximization: synthesized images that excite a unit.

Gradient ascent from noise (Simonyan et al. 2013, section 2), on the Fourier coefficients of an
image in decorrelated colors and under random transformations (Olah et al. 2017): pixels that ascend
on their own turn into a high-frequency pattern that resembles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from cnnkit._network_names import check_unit, fixed_image_size
from cnnkit.errors import DataError, UsageError
from cnnkit.models.class_names import class_count, class_index
from cnnkit.models.graph import Graph, Node, build_graph
from cnnkit.models.model_input import pixel_range
from cnnkit.visualize.argument_checks import validate_position
from cnnkit.visualize.attribution.tf_keras_vis import without_activation
from cnnkit.visualize.forward import check_weights

# Principal components of ImageNet's colors in 0..1, times their standard deviations; the rows are
# R, G and B. The eigenvalues and eigenvectors are those of the color noise of fb.resnet.torch.
_COLOR_COMPONENTS = np.sqrt([0.2175, 0.0188, 0.0045]) * np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
# Standard deviation of the coefficients at the start: an almost gray image.
_NOISE = 0.01


@dataclass(frozen=True)
class SynthesizedImage:
    """A synthesized image that excites one unit.

    Attributes:
        layer: Name of the layer.
        unit: Feature map of a convolution or pooling layer, or unit of a dense layer.
        image: (h, w, c) float32, within the range of the input.
        activation: Activation of the unit for the image, before its ReLU or softmax.
        start: Its activation for the noise that the ascent started from.
        position: (row, column) in the feature map, () in a dense layer.
        fires: False if the unit is not a class and `activation` is not above zero: a ReLU returns 0
            for the image, which then shows nothing that the unit responds to.
    """

    layer: str
    unit: int
    image: np.ndarray = field(repr=False)
    activation: float
    start: float
    position: tuple[int, ...]
    fires: bool = True


def activation_maximization(
    model: keras.Model,
    layer: str | None = None,
    unit: int | str | Sequence[int | str] = 0,
    *,
    position: tuple[int, int] | None = None,
    steps: int = 128,
    rate: float = 0.05,
    smoothness: float = 0.0,
    jitter: int | None = None,
    rotation: float = 5.0,
    scaling: float = 0.05,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    input_range: tuple[float, float] | None = None,
) -> list[SynthesizedImage]:
    """Synthesize images that excite units, by gradient ascent from noise.

    The score is the unit's activation before its ReLU or softmax, which would stop the gradient.
    The parameters are the coefficients of the image's Fourier transform, weighted so that all
    frequencies have the energy they have in photographs, in colors decorrelated as ImageNet's are.
    A sigmoid keeps every pixel within its range (Olah et al. 2017, "Feature Visualization"). Each
    step of Adam sees the image shifted, rotated and scaled at random, so that a pattern must excite
    the unit wherever it lies. The images show the strongest stimulus of a unit and need not look
    like photographs; another seed gives another image.

    Args:
        model: A functional or sequential model over images.
        layer: Name of a layer; None takes the last one.
        unit: One unit, or several. In the last layer, a class name names a unit too.
        position: (row, column) in the feature map; None takes its center.
        steps: Steps of the ascent.
        rate: Learning rate of Adam for the Fourier coefficients.
        smoothness: Weight of the total variation, the sum of absolute differences between neighbors
            divided by the number of values.
        jitter: Largest random shift of the image in each step, in pixels; None takes 1/28 of the
            shorter side, 8 pixels of 224.
        rotation: Largest random rotation, in degrees.
        scaling: Largest random change of size, as a fraction in 0..1.
        seed: Seed of the noise and the transformations.
        image_size: Side, or (h, w), of the image for a model that takes images of any size.
        input_range: Smallest and largest value of a pixel; None takes the range that the first
            layers of the model tell, or 0..255 with a warning. The noise is around the middle.

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
    check_weights(nodes)
    shape = _image_shape(graph, image_size)
    input_range = pixel_range(graph) if input_range is None else input_range
    if jitter is None:
        jitter = round(min(shape[:2]) / 28)
    _check_numbers(steps, rate, smoothness, jitter, rotation, scaling, input_range)
    output_shape = tuple(without_activation(nodes, {0: tf.zeros((1, *shape))}).shape[1:])
    if len(output_shape) not in (1, 3):
        raise UsageError(
            f"Layer {end.layer.name!r} has no units",
            expected="feature maps (h, w, c) or a vector",
            received=output_shape,
        )
    index = _unit_position(position, output_shape[:-1])
    transformations = _Transformations(jitter, rotation, scaling)
    ascend = _gradient_ascent(
        nodes, shape, index, steps, rate, smoothness,
        transformations, seed, input_range,
    )  # fmt: skip
    results = []
    for one in _unit_indices(graph, end, unit, output_shape[-1]):
        image, activation, start = ascend(end.layer.name, one)
        fires = activation > 0 or end is graph.output
        results.append(
            SynthesizedImage(end.layer.name, one, image, activation, start, index, fires)
        )
    return results


def _check_numbers(
    steps: int,
    rate: float,
    smoothness: float,
    jitter: int,
    rotation: float,
    scaling: float,
    input_range: tuple[float, float],
) -> None:
    low, high = input_range
    for name, value, fits, expected in (
        ("steps", steps, steps >= 1, "at least 1"),
        ("rate", rate, 0 < rate < np.inf, "above 0 and finite"),
        ("smoothness", smoothness, 0 <= smoothness < np.inf, "0 or more and finite"),
        ("jitter", jitter, jitter >= 0, "0 or more"),
        ("rotation", rotation, 0 <= rotation <= 180, "0 to 180 degrees"),
        ("scaling", scaling, 0 <= scaling < 1, "0 to below 1"),
        ("input_range", input_range, -np.inf < low < high < np.inf, "(low, high) with low < high"),
    ):
        if not fits:
            raise UsageError(f"`{name}` is out of its range", expected=expected, received=value)


@dataclass(frozen=True)
class _Transformations:
    """Random transformations of an image: see `activation_maximization`.

    Attributes:
        jitter: Largest shift in pixels.
        rotation: Largest rotation in degrees.
        scaling: Largest change of size, as a fraction.
    """

    jitter: int
    rotation: float
    scaling: float

    def sample(self, random: np.random.Generator, count: int, sides: tuple[int, int]) -> np.ndarray:
        """Return transformations about the center as (count, 1, 8) float32.

        Each is a projective matrix without its last entry, from output to input coordinates.
        """
        angle = np.deg2rad(random.uniform(-self.rotation, self.rotation, count))
        size = 1 / random.uniform(1 - self.scaling, 1 + self.scaling, count)
        rows, columns = random.integers(-self.jitter, self.jitter + 1, (2, count))
        cos, sin = size * np.cos(angle), size * np.sin(angle)
        y, x = ((side - 1) / 2 for side in sides)
        zero = np.zeros(count)
        matrix = (
            cos, -sin, x - cos * x + sin * y + columns,
            sin, cos, y - sin * x - cos * y + rows,
            zero, zero,
        )  # fmt: skip
        return np.stack(matrix, axis=1)[:, None].astype(np.float32)


def _fourier_image(
    shape: tuple[int, int, int], input_range: tuple[float, float]
) -> tuple[tuple[int, ...], Callable[[tf.Tensor], tf.Tensor]]:
    """Return the shape of an image's coefficients, and a function from them to (1, h, w, c)."""
    height, width, channels = shape
    low, high = input_range
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    # Photographs have amplitudes of about 1 / frequency.
    amplitude = np.sqrt(height * width) / np.maximum(frequency, 1 / max(height, width))
    weights = tf.constant(amplitude / 4, tf.float32)
    colors = _COLOR_COMPONENTS if channels == 3 else np.eye(channels)
    mix = tf.constant((colors / np.linalg.norm(colors, axis=0).max()).T, tf.float32)

    def to_image(coefficients: tf.Tensor) -> tf.Tensor:
        spectrum = tf.complex(coefficients[0], coefficients[1]) * tf.cast(weights, tf.complex64)
        planes = tf.signal.irfft2d(spectrum, [height, width])
        values = tf.transpose(planes, (1, 2, 0)) @ mix
        return low + (high - low) * tf.sigmoid(values)[None]

    return (2, channels, *frequency.shape), to_image


def _gradient_ascent(
    nodes: Sequence[Node],
    shape: tuple[int, int, int],
    position: tuple[int, ...],
    steps: int,
    rate: float,
    smoothness: float,
    transformations: _Transformations,
    seed: int,
    input_range: tuple[float, float],
) -> Callable[[str, int], tuple[np.ndarray, float, float]]:
    """Return a function of layer name and unit that synthesizes an image.

    It returns the image (h, w, c), the unit's activation for it, and that for the noise. `nodes`
    are those of the layer and below; the other arguments are those of `activation_maximization`.
    """
    coefficients_shape, to_image = _fourier_image(shape, input_range)
    coefficients = tf.Variable(tf.zeros(coefficients_shape))

    def score(images: tf.Tensor, unit: tf.Tensor) -> tf.Tensor:
        values = without_activation(nodes, {0: images})
        return tf.cast(values, tf.float32)[(0, *position)][unit]

    @tf.function
    def gradient_of(unit: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            image = to_image(coefficients)
            seen = tf.raw_ops.ImageProjectiveTransformV3(
                images=image, transforms=matrix, output_shape=shape[:2], fill_value=0.0,
                interpolation="BILINEAR", fill_mode="REFLECT",
            )  # fmt: skip
            variation = tf.image.total_variation(image)[0] / float(np.prod(shape))
            loss = smoothness * variation - score(seen, unit)
        return tape.gradient(loss, coefficients)

    def ascend(layer: str, unit: int) -> tuple[np.ndarray, float, float]:
        # The same noise for every unit: the images differ because of the units only.
        random = np.random.default_rng(seed)
        coefficients.assign(random.normal(0, _NOISE, coefficients_shape))
        index = tf.constant(unit)
        start = _start_score(score, to_image(coefficients), layer, index)
        optimizer = keras.optimizers.Adam(float(rate))
        for matrix in transformations.sample(random, steps, shape[:2]):
            optimizer.apply([gradient_of(index, tf.constant(matrix))], [coefficients])
        image = to_image(coefficients)
        activation = float(score(image, index))
        if not (np.isfinite(image).all() and np.isfinite(activation)):
            raise DataError(
                f"The image for unit {unit} of {layer} is not finite",
                hint="Check the model's weights, or lower `rate`",
            )
        return image[0].numpy(), activation, start

    return ascend


def _start_score(
    score: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    noise: tf.Tensor,
    layer: str,
    unit: tf.Tensor,
) -> float:
    """Return the score of the noise, and check that it has a gradient there."""
    with tf.GradientTape() as tape:
        tape.watch(noise)
        value = score(noise, unit)
    gradient = tape.gradient(value, noise)
    if gradient is None or not np.any(gradient):
        raise DataError(
            f"Unit {int(unit)} of {layer} has no gradient at the noise, so the ascent cannot start",
            received=f"an activation of {float(value):.3g} and a gradient of zero",
            hint="Try another seed, or check that the unit fires for any image",
        )
    return float(value)


def _image_shape(graph: Graph, image_size: int | tuple[int, int] | None) -> tuple[int, int, int]:
    height, width, channels = graph.image_shape
    if image_size is not None:
        sides = tuple(image_size) if isinstance(image_size, Iterable) else (image_size, image_size)
        if (height or sides[0], width or sides[1]) != sides:
            raise fixed_image_size(f"{height} x {width}", f"{sides[0]} x {sides[1]}")
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
    several = not isinstance(unit, int | str) and isinstance(unit, Iterable)
    units: Sequence[int | str] = list(unit) if several else [unit]  # type: ignore[arg-type,list-item]
    # A network with one output has two classes and one unit.
    is_end = graph.outputs == (end.output,) and len(graph.model.outputs[0].shape) == 2
    if is_end and class_count(graph.model) == count:
        return [class_index(graph.model, one) for one in units]
    indices = []
    for one in units:
        check_unit(end.layer.name, one, count)
        indices.append(int(one))
    return indices

"""The nonlinearities by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import (
    CeilMaxPooling2D,
    ClassProbabilities,
    Dropout,
    GroupedConv2D,
    LocalResponseNormalization,
    ReLU,
    SubtractMean,
)
from cnnkit.models.preprocessing import IMAGENET_MEAN, Preprocessing

ACTIVATIONS = ("relu", "tanh", "sigmoid")


def activation_argument(kind: str):
    """Returns what the `activation=` argument of a layer takes.

    Raises:
        UsageError: If there is no such activation.
    """
    if kind not in ACTIVATIONS:
        raise unknown_name("activation", kind, ACTIVATIONS)
    return ReLU() if kind == "relu" else kind


def activation_layer(kind: str, name: str) -> keras.layers.Layer:
    """Returns a layer that is nothing but the activation."""
    return ReLU(name=name) if kind == "relu" else keras.layers.Activation(kind, name=name)


HIDDEN_UNITS = 4096
POOLINGS = ("avg", "max")


@dataclass(frozen=True)
class HeadConfig:
    """The dense layers at the end.

    Attributes:
        names: Names of the hidden layers and, last, of the logits.
        units: Units of a hidden layer.
        dropout: Fraction dropped at each hidden layer.
        dropout_first: Whether the dropout comes before its hidden layer instead of after it.
        activation: Activation of the hidden layers.
    """

    names: tuple[str, ...]
    units: int = HIDDEN_UNITS
    dropout: float = 0.5
    dropout_first: bool = False
    activation: str = "relu"

    def without(self, names: Collection[str]) -> HeadConfig:
        """Returns the head without the hidden layers `names`."""
        return replace(self, names=tuple(name for name in self.names if name not in names))


def classifier_head(
    x,
    head: HeadConfig,
    *,
    include_top: bool,
    pooling: str | None,
    classes: int,
    classifier_activation: str | None,
    hidden_initializers: Callable[[], dict],
    output_initializers: Callable[[], dict],
):
    """Returns the network's output tensor from its last feature map.

    The classes come in two layers: the logits, and `probabilities`. Both are float32 under every
    dtype policy, because top-k accuracy and a softmax over a thousand classes need it.

    Args:
        x: Last feature map, (n, h, w, c).
        head: The dense layers.
        include_top: Whether to add them.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits, or None for the logits themselves.
        hidden_initializers: Makes the initializer arguments of a hidden layer.
        output_initializers: The same for the logits.

    Raises:
        UsageError: If `pooling` is unknown or given with the top, or there are less than one class
            or hidden unit.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    if not include_top:
        if pooling == "avg":
            return keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
        if pooling == "max":
            return keras.layers.GlobalMaxPooling2D(name="global_pool")(x)
        return x
    if pooling is not None:
        raise UsageError(
            "Pooling replaces the dense head",
            expected="pooling=None, or include_top=False",
            received=f"pooling={pooling!r}, include_top=True",
        )
    if classes < 1 or head.units < 1:
        raise UsageError(
            "A classifier has classes and hidden units",
            expected="classes >= 1 and hidden_units >= 1",
            received=f"classes={classes}, hidden_units={head.units}",
        )
    x = keras.layers.Flatten(name="flatten")(x)
    *hidden, logits = head.names
    for name in hidden:
        dense = keras.layers.Dense(
            head.units,
            activation=activation_argument(head.activation),
            name=name,
            **hidden_initializers(),
        )
        dropout = Dropout(head.dropout, name=f"{name}_dropout")
        x = dense(dropout(x)) if head.dropout_first else dropout(dense(x))
    x = keras.layers.Dense(classes, dtype="float32", name=logits, **output_initializers())(x)
    if classifier_activation is None:
        return x
    return ClassProbabilities(classifier_activation, dtype="float32", name="probabilities")(x)


@dataclass(frozen=True)
class Stage:
    """A convolution and what follows it.

    Attributes:
        filters: Kernels of the convolution.
        kernel: Side of a kernel.
        stride: Step between positions.
        before: Rows and columns of zeros above and to the left of the image; None keeps the size.
        after: The same below and to the right.
        grouped: Whether the kernels see only the channels of their own tower.
        normalized: Whether local response normalization follows.
        pooled: Whether max-pooling follows.
        pool_first: Whether the pooling comes before the normalization.
        ceil: Whether the pooling rounds the number of positions up.
        activation_last: Whether the activation comes after normalization and pooling.
        bias_one: Whether the biases begin at the network's bias value instead of 0.
        stddev: Standard deviation of the first weights.
    """

    filters: int
    kernel: int
    stride: int = 1
    before: int | None = None
    after: int = 0
    grouped: bool = False
    normalized: bool = False
    pooled: bool = False
    pool_first: bool = False
    ceil: bool = False
    activation_last: bool = False
    bias_one: bool = False
    stddev: float = 0.01


@dataclass(frozen=True)
class PoolingConfig:
    """Side and step of the pooling windows."""

    size: int
    stride: int


OVERLAPPING = PoolingConfig(3, 2)  # Krizhevsky et al. 2012, section 3.4
PLAIN = PoolingConfig(2, 2)


def build_stages(
    x,
    stages: Mapping[str, Stage],
    *,
    groups: int,
    activation: str,
    normalization: Mapping[str, Any] | None,
    pooling: PoolingConfig,
    initializers: Callable[[Stage], dict],
):
    """Applies the stages to `x` and returns the last feature map.

    Args:
        x: (n, h, w, c).
        stages: The stages by their number, `"1"` for `conv1`, `norm1`, `pool1`.
        groups: Groups of the grouped stages.
        activation: `"relu"`, `"tanh"` or `"sigmoid"`.
        normalization: Arguments of the normalization, or None to leave it out.
        pooling: Windows of the pooling.
        initializers: Maps a stage to the initializer arguments of its convolution.
    """
    for number, stage in stages.items():
        if stage.before or stage.after:
            edges = (stage.before or 0, stage.after)
            x = keras.layers.ZeroPadding2D((edges, edges), name=f"pad{number}")(x)
        late = stage.activation_last
        x = GroupedConv2D(
            stage.filters,
            stage.kernel,
            strides=stage.stride,
            padding="same" if stage.before is None else "valid",
            groups=groups if stage.grouped else 1,
            activation=None if late else activation_argument(activation),
            name=f"conv{number}",
            **initializers(stage),
        )(x)
        steps = []
        if stage.normalized and normalization is not None:
            steps.append(LocalResponseNormalization(**normalization, name=f"norm{number}"))
        if stage.pooled:
            kind = CeilMaxPooling2D if stage.ceil else keras.layers.MaxPooling2D
            pool = kind(pooling.size, pooling.stride, name=f"pool{number}")
            steps.insert(0 if stage.pool_first else len(steps), pool)
        if late:
            steps.append(activation_layer(activation, f"{activation}{number}"))
        for step in steps:
            x = step(x)
    return x


def side_after(stages: Mapping[str, Stage], pooling: PoolingConfig) -> Callable[[int], int]:
    """Returns the function from a side of the image to the side of the last feature map."""

    def side(length: int) -> int:
        for stage in stages.values():
            if stage.before is None:
                length = -(-length // stage.stride)
            else:
                padded = length + stage.before + stage.after
                length = (padded - stage.kernel) // stage.stride + 1
            if length < 1:
                return 0
            if stage.pooled:
                overhang = pooling.stride - 1 if stage.ceil else 0
                length = (length + overhang - pooling.size) // pooling.stride + 1
        return length

    return side


def stages_by_number(stages: Sequence[Stage], drop: Collection[str]) -> dict[str, Stage]:
    """Returns the stages by number, without the dropped ones; the others keep their numbers."""
    return {
        str(number): stage
        for number, stage in enumerate(stages, start=1)
        if f"conv{number}" not in drop
    }


TRAINING_SIZE = 224
LARGEST_LEAST_SIZE = 1024


class ImageTooSmall(UsageError):
    """The network leaves no position of the image before its head.

    Attributes:
        least_side: The smallest side that leaves one.
    """

    def __init__(self, network: str, least_side: int, received: str) -> None:
        self.least_side = least_side
        super().__init__(
            f"The image is too small for {network}: no position is left before the head",
            expected=f"height and width of at least {least_side}",
            received=received,
        )


def input_block(
    network: str,
    input_shape: Sequence[int | None] | None,
    *,
    size: int = TRAINING_SIZE,
    include_top: bool,
    include_preprocessing: bool,
    mean: Sequence[float] | np.ndarray | None,
    side_after: Callable[[int], int],
):
    """Returns the input tensor and the tensor that the first convolution takes.

    Args:
        network: Name for the error text.
        input_shape: (height, width, 3), or None for the training size.
        size: The training size.
        include_top: Whether a dense head follows, which needs a known height and width.
        include_preprocessing: Whether the model subtracts `mean` itself.
        mean: RGB mean in 0..255, (3,) or at least (height, width, 3); None is ImageNet's color.
        side_after: Maps a side of the input to the side of the last feature map.

    Raises:
        UsageError: If the shape is none of an RGB image, or smaller than the network can take.
    """
    if input_shape is None:
        side = size if include_top else None
        input_shape = (side, side, 3)
    shape = tuple(input_shape)
    if len(shape) != 3 or shape[2] != 3:
        raise UsageError(
            "The networks take RGB images",
            expected="input_shape=(height, width, 3)",
            received=shape,
        )
    sides = shape[:2]
    if include_top and None in sides:
        raise UsageError(
            "The dense head needs a known image size",
            expected="a height and a width in input_shape",
            received=shape,
            hint="Give both, or pass include_top=False",
        )
    least = least_side(side_after)
    if any(side is not None and side < least for side in sides):
        raise ImageTooSmall(network, least, f"{shape[0]} x {shape[1]}")
    inputs = keras.Input(shape, name="images")
    if not include_preprocessing:
        return inputs, inputs
    mean = Preprocessing(IMAGENET_MEAN if mean is None else mean).for_size(*sides).mean
    return inputs, SubtractMean(mean, name="preprocessing")(inputs)


def least_side(side_after: Callable[[int], int]) -> int:
    """Returns the smallest side of an image that leaves one position before the head."""
    return next(side for side in range(1, LARGEST_LEAST_SIZE) if side_after(side) >= 1)

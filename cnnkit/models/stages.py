"""Build AlexNet and ZFNet from a table of convolution stages and a dense head."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from cnnkit._network_options import check_omitted
from cnnkit.layers import CeilMaxPooling2D, GroupedConv2D, LocalResponseNormalization
from cnnkit.layers.max_pooling import max_pooling
from cnnkit.models.blocks import (
    IMAGE_SIZE,
    HeadConfig,
    activation_argument,
    activation_layer,
    classifier_head,
    input_block,
)
from cnnkit.models.loading import Weights, find_weights, initializer_arguments, with_weights
from cnnkit.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Stage:
    """A convolution and the layers that follow it.

    Attributes:
        filters: Number of filters.
        kernel: Side of a filter.
        stride: Step from one position to the next.
        pad_before: Rows and columns of zeros above and to the left; None is `padding="same"`.
        pad_after: Rows and columns of zeros below and to the right.
        grouped: Whether the filters see only the channels of their own group.
        normalized: Whether local response normalization follows.
        pooled: Whether max-pooling follows.
        pool_first: Whether the pooling comes before the normalization.
        ceil: Whether the pooling rounds the number of positions up.
        activation_last: Whether the activation comes after normalization and pooling.
        bias_one: Whether the biases start at the network's bias value instead of 0.
        stddev: Standard deviation of the initial weights.
    """

    filters: int
    kernel: int
    stride: int = 1
    pad_before: int | None = None
    pad_after: int = 0
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
    """Side and stride of the pooling windows."""

    size: int
    stride: int


OVERLAPPING = PoolingConfig(3, 2)  # Krizhevsky et al. 2012, section 3.4
NON_OVERLAPPING = PoolingConfig(2, 2)


@dataclass(frozen=True)
class StagedNetwork:
    """The architecture of a network of stages and a dense head.

    Attributes:
        title: Name of the network in error messages.
        stages: The stages by number, `"1"` for `conv1`, `norm1` and `pool1`.
        head: The dense layers.
        activation: `"relu"`, `"tanh"` or `"sigmoid"`, of the convolutions.
        normalization: Arguments of local response normalization; None leaves it out.
        pooling: Windows of the pooling layers.
        groups: Groups of the grouped stages.
        image_size: Side of the images that the network was designed for.
    """

    title: str
    stages: Mapping[str, Stage]
    head: HeadConfig
    activation: str
    normalization: Mapping[str, Any] | None
    pooling: PoolingConfig
    groups: int = 1
    image_size: int = IMAGE_SIZE

    def final_side(self, side: int) -> int:
        """Return the side of the last feature map for images of `side` pixels, below 1 if none."""
        for stage in self.stages.values():
            if stage.pad_before is None:
                side = -(-side // stage.stride)
            else:
                padded = side + stage.pad_before + stage.pad_after
                side = (padded - stage.kernel) // stage.stride + 1
            if side < 1:
                return 0
            if stage.pooled:
                overhang = self.pooling.stride - 1 if stage.ceil else 0
                side = (side + overhang - self.pooling.size) // self.pooling.stride + 1
        return side


@dataclass(frozen=True)
class LayerInitializers:
    """Functions that make the initializer arguments of a layer.

    Attributes:
        stage: Makes those of the convolution of a stage.
        hidden: Makes those of a hidden dense layer.
        output: Makes those of the layer of the logits.
    """

    stage: Callable[[Stage], dict[str, Any]]
    hidden: Callable[[], dict[str, Any]]
    output: Callable[[], dict[str, Any]]


def omit_layers_from(
    title: str, stages: Sequence[Stage], head: HeadConfig, omit: Collection[str]
) -> tuple[dict[str, Stage], HeadConfig]:
    """Return the stages by number and the head, without the layers in `omit`.

    The papers remove layers to measure what they contribute: Krizhevsky et al. 2012, section 7;
    Zeiler & Fergus 2013, Table 3. They remove hidden dense layers and convolutions without a
    pooling or a normalization layer after them. The other layers keep their names.

    Args:
        title: Name of the network in error messages.
        stages: All stages.
        head: The dense layers.
        omit: Names of layers, such as `conv3` and `fc7`.

    Raises:
        UsageError: If `omit` is a string or names a layer that cannot be left out.
    """
    optional = [
        *(
            f"conv{number}"
            for number, stage in enumerate(stages, start=1)
            if not (stage.pooled or stage.normalized)
        ),
        *head.names[:-1],
    ]
    check_omitted(title, omit, optional)
    kept = {
        str(number): stage
        for number, stage in enumerate(stages, start=1)
        if f"conv{number}" not in omit
    }
    return kept, head.without(omit)


def build_staged_network(
    network: StagedNetwork,
    initializers: LayerInitializers,
    *,
    name: str,
    include_top: bool,
    weights: Weights,
    input_shape: Sequence[int | None] | None,
    pooling: str | None,
    classes: int,
    classifier_activation: str | None,
    include_preprocessing: bool,
    mean: Sequence[float] | np.ndarray | None,
    preprocessing: str | Preprocessing | None,
) -> keras.Model:
    """Build a network of stages and a dense head.

    Args:
        network: The architecture.
        initializers: The initial weights.
        name: Name of the model.
        include_top: Whether to add the dense head.
        weights: As `cnnkit.models.alexnet` takes them.
        input_shape: (height, width, 3), or None for the size of the architecture.
        pooling: Without the head: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits; None returns the logits.
        include_preprocessing: Whether the model subtracts `mean` itself.
        mean: RGB mean in 0..255; None is that of `weights`, or ImageNet's.
        preprocessing: What the weights were trained for, as `cnnkit.models.alexnet` takes it.

    Raises:
        UsageError: If an argument is out of range, or the image is too small.
    """
    file = find_weights(weights, mean=mean, preprocessing=preprocessing)
    inputs, x = input_block(
        network.title,
        input_shape,
        size=network.image_size,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        mean=mean,
        preprocessing=preprocessing,
        final_side=network.final_side,
    )
    for number, stage in network.stages.items():
        options = initializer_arguments(initializers.stage(stage), file)
        x = _apply_stage(x, number, stage, network, options)
    outputs = classifier_head(
        x,
        network.head,
        include_top=include_top,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        hidden_initializers=lambda: initializer_arguments(initializers.hidden(), file),
        output_initializers=lambda: initializer_arguments(initializers.output(), file),
    )
    model = keras.Model(inputs, outputs, name=name)
    return with_weights(model, file)


def _apply_stage(
    x: keras.KerasTensor,
    number: str,
    stage: Stage,
    network: StagedNetwork,
    initializers: dict[str, Any],
) -> keras.KerasTensor:
    if stage.pad_before or stage.pad_after:
        edges = (stage.pad_before or 0, stage.pad_after)
        x = keras.layers.ZeroPadding2D(
            (edges, edges), data_format="channels_last", name=f"pad{number}"
        )(x)
    late = stage.activation_last
    x = GroupedConv2D(
        int(stage.filters),
        stage.kernel,
        strides=stage.stride,
        padding="same" if stage.pad_before is None else "valid",
        data_format="channels_last",
        groups=network.groups if stage.grouped else 1,
        activation=None if late else activation_argument(network.activation),
        name=f"conv{number}",
        **initializers,
    )(x)
    following = []
    if stage.normalized and network.normalization is not None:
        norm = LocalResponseNormalization(**network.normalization, name=f"norm{number}")
        following.append(norm)
    if stage.pooled:
        kind = CeilMaxPooling2D if stage.ceil else max_pooling
        pool = kind(network.pooling.size, network.pooling.stride, name=f"pool{number}")
        following.insert(0 if stage.pool_first else len(following), pool)
    if late:
        following.append(activation_layer(network.activation, f"{network.activation}{number}"))
    for layer in following:
        x = layer(x)
    return x

"""The convolutional part of AlexNet and ZFNet: stages from one table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from cnnkit.layers import CeilMaxPooling2D, GroupedConv2D, LocalResponseNormalization
from cnnkit.models.activations import fused, separate


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
class Pooling:
    """Side and step of the pooling windows."""

    size: int
    stride: int


OVERLAPPING = Pooling(3, 2)  # Krizhevsky et al. 2012, section 3.4
PLAIN = Pooling(2, 2)


def build_stages(
    x,
    stages: Mapping[str, Stage],
    *,
    groups: int,
    activation: str,
    normalization: Mapping[str, Any] | None,
    pooling: Pooling,
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
            activation=None if late else fused(activation),
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
            steps.append(separate(activation, f"{activation}{number}"))
        for step in steps:
            x = step(x)
    return x


def side_after(stages: Mapping[str, Stage], pooling: Pooling) -> Callable[[int], int]:
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


def numbered(stages: Sequence[Stage], drop: Collection[str]) -> dict[str, Stage]:
    """Returns the stages by number, without the dropped ones; the others keep their numbers."""
    return {
        str(number): stage
        for number, stage in enumerate(stages, start=1)
        if f"conv{number}" not in drop
    }

"""Caffe's small networks for CIFAR-10, after the cuda-convnet examples of AlexNet's authors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from cnnkit._networks import INITIALIZERS
from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import CeilMaxPooling2D, GroupedConv2D, LocalResponseNormalization
from cnnkit.models.blocks import (
    HeadConfig,
    activation_argument,
    activation_layer,
    check_arguments,
    classifier_head,
    input_block,
)
from cnnkit.models.preprocessing import Preprocessing

SIZE = 32
FILTERS = (32, 32, 64)
# Standard deviations of the initial weights of the three convolutions.
STDDEVS = (1e-4, 0.01, 0.01)
NORMALIZATION: dict[str, Any] = {
    "size": 3,
    "alpha": 5e-5,
    "beta": 0.75,
    "k": 1.0,
    "alpha_convention": "mean",
    "region": "within",
}
QUICK_UNITS = 64
HALVINGS = 3


def cifar10_full(
    *,
    include_top: bool = True,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 10,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
    lrn: bool = True,
    activation: str = "relu",
    initializer: str = "paper",
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build Caffe's cifar10_full: three convolutions of 5 x 5, one dense layer.

    Takes RGB images (n, h, w, 3) in 0..255 and returns class probabilities (n, classes). Layers:
    `conv1 pool1 relu1 norm1 conv2 pool2 norm2 conv3 pool3 fc4 probabilities`; the first pooling
    takes the maximum, the others the mean; normalization is within a channel.

    Args:
        include_top: Whether to add `fc4` and `probabilities`.
        input_shape: (height, width, 3); None is 32 x 32. Divisible by 8, so that the poolings
            overhang on the bottom and the right only, as Caffe's do.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits; None returns the logits.
        include_preprocessing: Whether the model subtracts `mean` itself.
        name: Name of the model.
        lrn: Whether to use local response normalization.
        activation: `"relu"`, or a saturating `"tanh"` or `"sigmoid"`. Four layers of weights
            without normalization are the kind of network of Krizhevsky et al. 2012, Fig. 1.
        initializer: `"paper"`: Caffe's normal weights. `"glorot"`: Glorot uniform weights.
        mean: RGB mean in 0..255 that is subtracted, a color (3,) or an image (h, w, 3).
        preprocessing: Mean and deviation by a name such as `"torch"`, or a `Preprocessing`.

    Raises:
        UsageError: If an argument is out of range, or the image does not fit.

    Example:
        >>> from cnnkit.models import build
        >>> build("cifar10_full").count_params()
        89578
    """
    check_arguments(locals())
    inputs, x = _input_block(
        "cifar10_full", input_shape, include_top, include_preprocessing, mean, preprocessing
    )
    x = _convolutions(x, activation, initializer, normalized=lrn)
    outputs = classifier_head(
        x,
        HeadConfig(("fc4",)),
        include_top=include_top,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        hidden_initializers=dict,
        output_initializers=lambda: _normal(initializer, 0.01),
    )
    return keras.Model(inputs, outputs, name=name or "cifar10_full")


def cifar10_quick(
    *,
    include_top: bool = True,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 10,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
    activation: str = "relu",
    initializer: str = "paper",
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build Caffe's cifar10_quick: `cifar10_full` without normalization and one more dense layer.

    The dense layer `fc4` of 64 units has no activation; `fc5` gives the logits. The arguments are
    those of `cifar10_full`.

    Raises:
        UsageError: If an argument is out of range, or the image does not fit.

    Example:
        >>> from cnnkit.models import build
        >>> build("cifar10_quick").count_params()
        145578
    """
    check_arguments(locals())
    inputs, x = _input_block(
        "cifar10_quick", input_shape, include_top, include_preprocessing, mean, preprocessing
    )
    x = _convolutions(x, activation, initializer, normalized=False)
    if include_top:
        x = keras.layers.Flatten("channels_last", name="flatten4")(x)
        x = keras.layers.Dense(QUICK_UNITS, name="fc4", **_normal(initializer, 0.1))(x)
    outputs = classifier_head(
        x,
        HeadConfig(("fc5",)),
        include_top=include_top,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        hidden_initializers=dict,
        output_initializers=lambda: _normal(initializer, 0.1),
    )
    return keras.Model(inputs, outputs, name=name or "cifar10_quick")


def _input_block(
    network: str,
    input_shape: Sequence[int | None] | None,
    include_top: bool,
    include_preprocessing: bool,
    mean: Sequence[float] | np.ndarray | None,
    preprocessing: str | Preprocessing | None,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    inputs, x = input_block(
        network,
        input_shape,
        size=SIZE,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        mean=mean,
        preprocessing=preprocessing,
        final_side=lambda side: side // 2**HALVINGS,
    )
    if any(side is not None and side % 2**HALVINGS for side in x.shape[1:3]):
        raise UsageError(
            f"`input_shape` of {network} must be divisible, because three poolings halve the maps",
            expected=f"a height and a width divisible by {2**HALVINGS}",
            received=f"{x.shape[1]} x {x.shape[2]}",
        )
    return inputs, x


def _convolutions(
    x: keras.KerasTensor, activation: str, initializer: str, *, normalized: bool
) -> keras.KerasTensor:
    if initializer not in INITIALIZERS:
        raise unknown_name("initializer", initializer, INITIALIZERS)
    for number, (filters, stddev) in enumerate(zip(FILTERS, STDDEVS, strict=True), start=1):
        first = number == 1
        x = GroupedConv2D(
            filters,
            5,
            padding="same",
            data_format="channels_last",
            activation=None if first else activation_argument(activation),
            name=f"conv{number}",
            **_normal(initializer, stddev),
        )(x)
        if first:
            x = CeilMaxPooling2D(3, 2, name="pool1")(x)
            x = activation_layer(activation, f"{activation}1")(x)
        else:
            # On even maps this is Caffe's rule: an overhanging window averages the cells in it.
            x = keras.layers.AveragePooling2D(
                3, 2, padding="same", data_format="channels_last", name=f"pool{number}"
            )(x)
        if normalized and number < len(FILTERS):
            x = LocalResponseNormalization(**NORMALIZATION, name=f"norm{number}")(x)
    return x


def _normal(initializer: str, stddev: float) -> dict[str, Any]:
    if initializer == "glorot":
        return {}
    return {"kernel_initializer": keras.initializers.RandomNormal(stddev=stddev)}

"""AlexNet (Krizhevsky, Sutskever & Hinton 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import GroupedConv2D, LocalResponseNormalization, ReLU
from cnnkit.models.head import finish
from cnnkit.models.loading import load_weights
from cnnkit.models.stem import IMAGENET_MEAN, begin

INITIALIZERS = ("paper", "glorot")


@dataclass(frozen=True)
class _Stage:
    """One row of section 3.5: a convolution, and what follows its ReLU."""

    filters: int
    kernel: int
    stride: int
    grouped: bool
    normalized: bool
    pooled: bool
    bias_one: bool


# Krizhevsky et al. 2012, section 3.5 (kernels, connections), 3.3 and 3.4 (what follows),
# section 5 (which biases begin at one).
STAGES = (
    _Stage(96, 11, 4, grouped=False, normalized=True, pooled=True, bias_one=False),
    _Stage(256, 5, 1, grouped=True, normalized=True, pooled=True, bias_one=True),
    _Stage(384, 3, 1, grouped=False, normalized=False, pooled=False, bias_one=False),
    _Stage(384, 3, 1, grouped=True, normalized=False, pooled=False, bias_one=True),
    _Stage(256, 3, 1, grouped=True, normalized=False, pooled=True, bias_one=True),
)
POOL_SIZE, POOL_STRIDE = 3, 2  # section 3.4
WEIGHT_STDDEV = 0.01  # section 5

# The authors' code rounds the number of positions up: on 224 pixels the last 11-pixel window
# overhangs the image by three, which reads as zeros on the bottom and the right.
OVERHANG = 3


def alexnet(
    *,
    include_top: bool = True,
    weights: str | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
    groups: int = 2,
    dropout: float = 0.5,
    initializer: str = "paper",
    bias_value: float = 1.0,
    mean: Sequence[float] = IMAGENET_MEAN,
) -> keras.Model:
    """Builds AlexNet (Krizhevsky et al. 2012, section 3.5 and Fig. 2).

    Takes RGB images (n, h, w, 3) in 0..255 and returns class probabilities (n, classes). Layers:
    `conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 fc7 fc8 probabilities`; the
    output of a convolution and of `fc6` and `fc7` is after its ReLU, that of `fc8` the logits.

    Args:
        include_top: Whether to add `fc6` to `probabilities`.
        weights: None for fresh weights, or a `.weights.h5` or `.keras` file of the same network.
        input_shape: (height, width, 3); None is 224 x 224 with the top, any size without.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits; None returns the logits.
        include_preprocessing: Whether the model subtracts `mean` itself.
        name: Name of the model.
        groups: 2 for the paper's two towers (60,965,224 parameters), 1 for one (62,378,344).
        dropout: Fraction dropped after `fc6` and `fc7`.
        initializer: `"paper"`: normal weights of standard deviation 0.01 and `bias_value` where the
            paper starts biases at one. `"glorot"`: Glorot uniform weights, biases 0.
        bias_value: First value of the biases of `conv2 conv4 conv5 fc6 fc7` under `"paper"`. The
            paper's 1 stays at a loss of ln(classes) for long on little data; Caffe uses 0.1.
        mean: RGB mean in 0..255 that is subtracted.

    Raises:
        UsageError: If an argument is out of range, or the image too small.

    Example:
        >>> from cnnkit import alexnet
        >>> alexnet().count_params()
        60965224
    """
    if groups not in (1, 2):
        raise UsageError("AlexNet has one tower or two", expected="groups=1 or 2", received=groups)
    if initializer not in INITIALIZERS:
        raise unknown_name("initializer", initializer, INITIALIZERS)
    inputs, x = begin(
        "AlexNet",
        input_shape,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        mean=mean,
        side_after=_side_after,
    )

    def initializers(bias_one: bool) -> dict:
        if initializer == "glorot":
            return {}
        return {
            "kernel_initializer": keras.initializers.RandomNormal(stddev=WEIGHT_STDDEV),
            "bias_initializer": keras.initializers.Constant(bias_value if bias_one else 0.0),
        }

    for number, stage in enumerate(STAGES, start=1):
        if number == 1:
            x = keras.layers.ZeroPadding2D(((0, OVERHANG), (0, OVERHANG)), name="pad1")(x)
        x = GroupedConv2D(
            stage.filters,
            stage.kernel,
            strides=stage.stride,
            padding="valid" if number == 1 else "same",
            groups=groups if stage.grouped else 1,
            activation=ReLU(),
            name=f"conv{number}",
            **initializers(stage.bias_one),
        )(x)
        if stage.normalized:
            x = LocalResponseNormalization(name=f"norm{number}")(x)
        if stage.pooled:
            x = keras.layers.MaxPooling2D(POOL_SIZE, POOL_STRIDE, name=f"pool{number}")(x)
    outputs = finish(
        x,
        names=("fc6", "fc7", "fc8"),
        include_top=include_top,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        dropout=dropout,
        hidden_initializers=lambda: initializers(True),
        output_initializers=lambda: initializers(False),
    )
    return load_weights(keras.Model(inputs, outputs, name=name or "alexnet"), weights)


def _side_after(side: int) -> int:
    for number, stage in enumerate(STAGES, start=1):
        if number == 1:
            side = (side + OVERHANG - stage.kernel) // stage.stride + 1
        if stage.pooled:
            side = (side - POOL_SIZE) // POOL_STRIDE + 1
    return side

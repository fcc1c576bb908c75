"""The VGG networks (Simonyan & Zisserman 2014)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np

from cnnkit._networks import INITIALIZERS
from cnnkit.errors import unknown_name
from cnnkit.layers import LocalResponseNormalization
from cnnkit.layers.max_pooling import max_pooling
from cnnkit.models.blocks import (
    HeadConfig,
    activation_argument,
    check_arguments,
    classifier_head,
    input_block,
)
from cnnkit.models.loading import Weights, find_weights, initializer_arguments, with_weights
from cnnkit.models.preprocessing import Preprocessing
from cnnkit.models.stages import omit_layers_from

# Simonyan & Zisserman 2014, Table 1: the columns, top to bottom. A word is "kernel-filters" for a
# convolution with its ReLU, or LRN; max-pooling ends every block.
COLUMNS = {
    "A": "3-64 | 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512",
    "A-LRN": "3-64 LRN | 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512",
    "B": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512",
    # Section 2.3: the shallower net that B is compared with, one 5 x 5 for each pair of 3 x 3.
    "B-5x5": "5-64 | 5-128 | 5-256 | 5-512 | 5-512",
    "C": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 1-256 | 3-512 3-512 1-512 | 3-512 3-512 1-512",
    "D": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 | 3-512 3-512 3-512 | 3-512 3-512 3-512",
    "E": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 3-256 | 3-512 3-512 3-512 3-512"
    " | 3-512 3-512 3-512 3-512",
}

# The columns for which keras.applications offers ImageNet weights.
DOWNLOADED = {"D": "vgg16", "E": "vgg19"}

PAPER_STDDEV = 0.1  # section 3.1: a variance of 0.01


def vgg(
    config: str = "D",
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
    activation: str = "relu",
    omit_layers: Collection[str] = (),
    dropout: float = 0.5,
    initializer: str = "glorot",
    weight_stddev: float = PAPER_STDDEV,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build the VGG network of one column of Table 1 (Simonyan & Zisserman 2014).

    Takes RGB images (n, h, w, 3) in 0..255 and returns class probabilities (n, classes). Layers as
    in keras.applications: `block1_conv1 ... block5_pool fc1 fc2 predictions`, then `probabilities`;
    the output of a convolution and of `fc1` and `fc2` is after its ReLU, that of `predictions` the
    logits. Biases begin at 0.

    Args:
        config: A column: `"A"`, `"A-LRN"`, `"B"`, `"C"`, `"D"` or `"E"`; or `"B-5x5"`, the net that
            the paper compares B with.
        include_top: Whether to add `fc1` to `probabilities`.
        weights: None for random weights, or a file of Keras, PyTorch, Caffe or NumPy, as
            `open_weights` reads it; or `"imagenet"`, which downloads them for D and E. The model
            takes over the mean of the file.
        input_shape: (height, width, 3); None is 224 x 224 with the top, any size without.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits; None returns the logits.
        include_preprocessing: Whether the model subtracts `mean` itself.
        name: Name of the model.
        activation: `"relu"`, or a saturating `"tanh"` or `"sigmoid"`.
        omit_layers: Layers to leave out: `fc1`, `fc2`.
        dropout: Fraction dropped after `fc1` and `fc2`.
        initializer: `"glorot"`, which the authors found to make their own staged initialization
            unnecessary (section 3.1, footnote), or `"paper"`: normal weights.
        weight_stddev: Standard deviation under `"paper"`, whose variance of 0.01 is this default;
            many implementations take 0.01 for it.
        mean: RGB mean in 0..255 that is subtracted, a color (3,) or an image (h, w, 3) at least as
            large as the input; None is that of `weights`, or ImageNet's.
        preprocessing: What the weights were trained for, where their file does not say it: a name
            as `open_weights` takes it, such as `"caffe"` or `"torch"`, or a `Preprocessing`.

    Raises:
        UsageError: If an argument is out of range, or the image is too small.

    Example:
        >>> from cnnkit.models import vgg
        >>> vgg("A").count_params()
        132863336
    """
    check_arguments(locals())
    if config not in COLUMNS:
        raise unknown_name("VGG configuration", config, COLUMNS)
    if initializer not in INITIALIZERS:
        raise unknown_name("initializer", initializer, INITIALIZERS)
    head = HeadConfig(("fc1", "fc2", "predictions"), dropout=dropout, activation=activation)
    _, head = omit_layers_from("VGG", (), head, omit_layers)
    blocks = [block.split() for block in COLUMNS[config].split("|")]
    inputs, x = input_block(
        f"VGG {config}",
        input_shape,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        mean=mean,
        preprocessing=preprocessing,
        final_side=lambda side: side >> len(blocks),
    )

    file = find_weights(
        weights,
        DOWNLOADED.get(config),
        include_top=include_top,
        classes=classes,
        mean=mean,
        preprocessing=preprocessing,
    )

    def initializers() -> dict[str, Any]:
        if initializer == "glorot":
            return initializer_arguments({}, file)
        normal = keras.initializers.RandomNormal(stddev=weight_stddev)
        return initializer_arguments({"kernel_initializer": normal}, file)

    for number, block in enumerate(blocks, start=1):
        position = 0
        for word in block:
            if word == "LRN":
                x = LocalResponseNormalization(name=f"block{number}_norm")(x)
                continue
            position += 1
            kernel, filters = map(int, word.split("-"))
            x = keras.layers.Conv2D(
                filters,
                kernel,
                padding="same",
                data_format="channels_last",
                activation=activation_argument(activation),
                name=f"block{number}_conv{position}",
                **initializers(),
            )(x)
        x = max_pooling(2, 2, name=f"block{number}_pool")(x)
    outputs = classifier_head(
        x,
        head,
        include_top=include_top,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        hidden_initializers=initializers,
        output_initializers=initializers,
    )
    default = f"vgg_{config.lower().replace('-', '_')}"
    model = keras.Model(inputs, outputs, name=name or default)
    return with_weights(model, file)


# The builders below repeat the arguments of `vgg`, so that editors, type checkers and
# `inspect.signature` show them. `locals()` holds exactly the arguments where they call it.


def vgg11(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "vgg11",
    activation: str = "relu",
    omit_layers: Collection[str] = (),
    dropout: float = 0.5,
    initializer: str = "glorot",
    weight_stddev: float = PAPER_STDDEV,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build VGG-11, column A of Table 1: see `vgg` for arguments, layers and errors."""
    return vgg("A", **locals())


def vgg11_lrn(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "vgg11_lrn",
    activation: str = "relu",
    omit_layers: Collection[str] = (),
    dropout: float = 0.5,
    initializer: str = "glorot",
    weight_stddev: float = PAPER_STDDEV,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build VGG-11 with local response normalization, column A-LRN of Table 1.

    See `vgg` for arguments, layers and errors.
    """
    return vgg("A-LRN", **locals())


def vgg13(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "vgg13",
    activation: str = "relu",
    omit_layers: Collection[str] = (),
    dropout: float = 0.5,
    initializer: str = "glorot",
    weight_stddev: float = PAPER_STDDEV,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build VGG-13, column B of Table 1: see `vgg` for arguments, layers and errors."""
    return vgg("B", **locals())


def vgg16_c(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "vgg16_c",
    activation: str = "relu",
    omit_layers: Collection[str] = (),
    dropout: float = 0.5,
    initializer: str = "glorot",
    weight_stddev: float = PAPER_STDDEV,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build VGG-16 with 1 x 1 convolutions, column C of Table 1.

    See `vgg` for arguments, layers and errors.
    """
    return vgg("C", **locals())


def vgg16(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "vgg16",
    activation: str = "relu",
    omit_layers: Collection[str] = (),
    dropout: float = 0.5,
    initializer: str = "glorot",
    weight_stddev: float = PAPER_STDDEV,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build VGG-16, column D of Table 1: see `vgg` for arguments, layers and errors."""
    return vgg("D", **locals())


def vgg19(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "vgg19",
    activation: str = "relu",
    omit_layers: Collection[str] = (),
    dropout: float = 0.5,
    initializer: str = "glorot",
    weight_stddev: float = PAPER_STDDEV,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build VGG-19, column E of Table 1: see `vgg` for arguments, layers and errors."""
    return vgg("E", **locals())

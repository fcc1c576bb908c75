"""AlexNet (Krizhevsky, Sutskever & Hinton 2012) and the networks that bear its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from cnnkit._deprecation import renamed_argument
from cnnkit._network_options import check_filters
from cnnkit._networks import FILTER_LAYERS, INITIALIZERS
from cnnkit.errors import UsageError, unknown_name
from cnnkit.models.blocks import HIDDEN_UNITS, IMAGE_SIZE, HeadConfig, check_arguments
from cnnkit.models.loading import Weights
from cnnkit.models.preprocessing import Preprocessing
from cnnkit.models.stages import (
    NON_OVERLAPPING,
    OVERLAPPING,
    LayerInitializers,
    Stage,
    StagedNetwork,
    build_staged_network,
    omit_layers_from,
)

# The authors' code rounds the number of positions up: on 224 pixels the last 11-pixel window
# overhangs the image by three, which reads as zeros on the bottom and the right.
OVERHANG = 3

# Krizhevsky et al. 2012: filters and groups in section 3.5, normalization and pooling in 3.3 and
# 3.4, the biases that start at one in section 5.
PAPER = (
    Stage(96, 11, 4, pad_before=0, pad_after=OVERHANG, normalized=True, pooled=True),
    Stage(256, 5, grouped=True, normalized=True, pooled=True, bias_one=True),
    Stage(384, 3),
    Stage(384, 3, grouped=True, bias_one=True),
    Stage(256, 3, grouped=True, pooled=True, bias_one=True),
)

# BVLC Caffe, models/bvlc_alexnet: 227-pixel crops need no overhang.
CAFFE = (Stage(96, 11, 4, pad_before=0, normalized=True, pooled=True), *PAPER[1:])

# BVLC Caffe, models/bvlc_reference_caffenet: the same, with the poolings before the normalizations.
CAFFENET = tuple(replace(stage, pool_first=stage.normalized) for stage in CAFFE)

# cuda-convnet2, layers/layers-223-1gpu.cfg: the authors' later net (Krizhevsky 2014). The ReLU of
# its first stage comes after the pooling.
ONE_WEIRD_TRICK = (
    Stage(
        64, 11, 4, pad_before=0, pad_after=OVERHANG, normalized=True, pooled=True,
        activation_last=True,
    ),
    Stage(192, 5, normalized=True, pooled=True, bias_one=True),
    Stage(384, 3, stddev=0.03),
    Stage(256, 3, bias_one=True, stddev=0.03),
    Stage(256, 3, pooled=True, bias_one=True, stddev=0.03),
)  # fmt: skip

# torchvision/models/alexnet.py: the same widths, two pixels of padding on every side.
TORCHVISION = (
    Stage(64, 11, 4, pad_before=2, pad_after=2, pooled=True),
    Stage(192, 5, pooled=True),
    Stage(384, 3),
    Stage(256, 3),
    Stage(256, 3, pooled=True),
)


@dataclass(frozen=True)
class Preset:
    """The choices in which the networks called AlexNet differ.

    Attributes:
        stages: The convolutions and what follows them.
        size: Side of the images.
        normalization: Arguments of local response normalization; None leaves it out.
        initializer: Default of the argument `initializer`.
        bias_value: Default of the argument `bias_value`.
        hidden_stddev: Standard deviation of the initial weights of the hidden dense layers.
        output_bias: Initial biases of the logits.
        dropout_first: Whether the dropout comes before its dense layer instead of after it.
    """

    stages: tuple[Stage, ...]
    size: int = IMAGE_SIZE
    normalization: Mapping[str, Any] | None = field(default_factory=dict)
    initializer: str = "paper"
    bias_value: float = 1.0
    hidden_stddev: float = 0.01
    output_bias: float = 0.0
    dropout_first: bool = False


# Alpha is divided by the number of cells of a window, as in cuda-convnet and Caffe.
DIVIDED = {"alpha_convention": "mean"}
BVLC = Preset(
    CAFFE, size=227, normalization={"k": 1.0, **DIVIDED}, bias_value=0.1, hidden_stddev=0.005
)
PRESETS = {
    "paper": Preset(PAPER),
    "caffe": BVLC,
    # CaffeNet's model file gives conv2, conv4, conv5, fc6 and fc7 biases of 1 again.
    "caffenet": replace(BVLC, stages=CAFFENET, bias_value=1.0),
    "one-weird-trick": Preset(ONE_WEIRD_TRICK, normalization=DIVIDED, output_bias=-7.0),
    "torchvision": Preset(
        TORCHVISION, normalization=None, initializer="glorot", dropout_first=True
    ),
}


@renamed_argument("drop_layers", "omit_layers")
def alexnet(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
    preset: str = "paper",
    groups: int = 2,
    filters: Sequence[int] | None = None,
    sixth_conv: int | None = None,
    activation: str = "relu",
    lrn: bool = True,
    overlapping_pooling: bool = True,
    omit_layers: Collection[str] = (),
    hidden_units: int = HIDDEN_UNITS,
    dropout: float = 0.5,
    initializer: str | None = None,
    bias_value: float | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build AlexNet (Krizhevsky et al. 2012, section 3.5 and Fig. 2).

    Takes RGB images (n, h, w, 3) in 0..255 and returns class probabilities (n, classes). Layers:
    `conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 fc7 fc8 probabilities`; the
    output of a convolution and of `fc6` and `fc7` is after its ReLU, that of `fc8` the logits.

    Args:
        include_top: Whether to add `fc6` to `probabilities`.
        weights: None for random weights, or a file of Keras, PyTorch, Caffe or NumPy, as
            `open_weights` reads it. The model takes over the mean of the file.
        input_shape: (height, width, 3); None is the preset's size with the top (224, Caffe's 227),
            any size without.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits; None returns the logits.
        include_preprocessing: Whether the model subtracts `mean` itself.
        name: Name of the model.
        preset: `"paper"`; `"caffe"`, BVLC's network; `"caffenet"`, BVLC's variant that pools before
            it normalizes; `"one-weird-trick"`, the authors' later net without groups (Krizhevsky
            2014); `"torchvision"`, that net without normalization.
        groups: 2 for two towers (60,965,224 parameters), 1 for one (62,378,344). The presets
            `"one-weird-trick"` and `"torchvision"` have one tower in either case.
        filters: Filters of `conv1` to `conv5`, even with `groups=2`; None is the preset's. With
            `groups=1`, (48, 128, 192, 192, 256) is the paper's net for one GPU (section 3.2).
        sixth_conv: Filters of a sixth convolution, 3 x 3, over the last pooling layer, as in the
            network trained on 22,000 classes (section 6). The paper does not give their number.
        activation: `"relu"`, or a saturating `"tanh"` or `"sigmoid"` (section 3.1).
        lrn: Whether to use local response normalization (section 3.3).
        overlapping_pooling: Whether pooling windows are 3 x 3 at stride 2 (section 3.4) instead of
            2 x 2.
        omit_layers: Layers to leave out: `conv3`, `conv4` (section 7), `fc6`, `fc7`.
        hidden_units: Units of `fc6` and `fc7`.
        dropout: Fraction dropped after `fc6` and `fc7` (torchvision: before them).
        initializer: `"paper"`: normal weights, and `bias_value` where the paper starts biases at
            one. `"glorot"`: Glorot uniform weights, biases 0. None is the preset's.
        bias_value: Initial biases of `conv2 conv4 conv5 fc6 fc7` under `"paper"`. With the paper's
            1 the loss stays at ln(classes) for long on little data; Caffe uses 0.1.
        mean: RGB mean in 0..255 that is subtracted, a color (3,) or an image (h, w, 3) at least as
            large as the input; None is that of `weights`, or ImageNet's.
        preprocessing: What the weights were trained for, where their file does not say it: a name
            as `open_weights` takes it, such as `"caffe"` or `"torch"`, or a `Preprocessing`.

    Raises:
        UsageError: If an argument is out of range, or the image is too small.

    Example:
        >>> from cnnkit import alexnet
        >>> alexnet().count_params()
        60965224
    """
    check_arguments(locals())
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    chosen = PRESETS[preset]
    initializer = chosen.initializer if initializer is None else initializer
    bias_value = chosen.bias_value if bias_value is None else bias_value
    if initializer not in INITIALIZERS:
        raise unknown_name("initializer", initializer, INITIALIZERS)
    head = HeadConfig(
        ("fc6", "fc7", "fc8"), hidden_units, dropout, chosen.dropout_first, activation
    )
    convolutions = chosen.stages
    if filters is not None:
        check_filters("AlexNet", filters, FILTER_LAYERS["alexnet"])
        if groups == 2 and any(count % 2 for count in filters):
            raise UsageError("`filters` must be even with `groups=2`", received=list(filters))
        pairs = zip(convolutions, filters, strict=True)
        convolutions = tuple(replace(stage, filters=int(count)) for stage, count in pairs)
    stages, head = omit_layers_from("AlexNet", convolutions, head, omit_layers)
    if sixth_conv is not None:
        stages["6"] = Stage(sixth_conv, 3)
    network = StagedNetwork(
        "AlexNet",
        stages,
        head,
        activation,
        normalization=chosen.normalization if lrn else None,
        pooling=OVERLAPPING if overlapping_pooling else NON_OVERLAPPING,
        groups=groups,
        image_size=chosen.size,
    )
    return build_staged_network(
        network,
        _initializers(initializer, chosen, bias_value),
        name=name or "alexnet",
        include_top=include_top,
        weights=weights,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        include_preprocessing=include_preprocessing,
        mean=mean,
        preprocessing=preprocessing,
    )


def _initializers(kind: str, preset: Preset, bias_value: float) -> LayerInitializers:
    def normal(stddev: float, bias: float) -> dict[str, Any]:
        if kind == "glorot":
            return {}
        return {
            "kernel_initializer": keras.initializers.RandomNormal(stddev=stddev),
            "bias_initializer": keras.initializers.Constant(bias),
        }

    return LayerInitializers(
        stage=lambda stage: normal(stage.stddev, bias_value if stage.bias_one else 0.0),
        hidden=lambda: normal(preset.hidden_stddev, bias_value),
        output=lambda: normal(0.01, preset.output_bias),
    )


# The builders below repeat the arguments of `alexnet`, so that editors, type checkers and
# `inspect.signature` show them. `locals()` holds exactly the arguments where they call it.


@renamed_argument("drop_layers", "omit_layers")
def alexnet_caffe(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "alexnet_caffe",
    groups: int = 2,
    filters: Sequence[int] | None = None,
    sixth_conv: int | None = None,
    activation: str = "relu",
    lrn: bool = True,
    overlapping_pooling: bool = True,
    omit_layers: Collection[str] = (),
    hidden_units: int = HIDDEN_UNITS,
    dropout: float = 0.5,
    initializer: str | None = None,
    bias_value: float | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build BVLC's AlexNet: see `alexnet` for arguments, layers and errors."""
    return alexnet(preset="caffe", **locals())


@renamed_argument("drop_layers", "omit_layers")
def caffenet(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "caffenet",
    groups: int = 2,
    filters: Sequence[int] | None = None,
    sixth_conv: int | None = None,
    activation: str = "relu",
    lrn: bool = True,
    overlapping_pooling: bool = True,
    omit_layers: Collection[str] = (),
    hidden_units: int = HIDDEN_UNITS,
    dropout: float = 0.5,
    initializer: str | None = None,
    bias_value: float | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build BVLC's CaffeNet, which pools before it normalizes.

    See `alexnet` for arguments, layers and errors.
    """
    return alexnet(preset="caffenet", **locals())


@renamed_argument("drop_layers", "omit_layers")
def alexnet_one_weird_trick(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "alexnet_one_weird_trick",
    groups: int = 2,
    filters: Sequence[int] | None = None,
    sixth_conv: int | None = None,
    activation: str = "relu",
    lrn: bool = True,
    overlapping_pooling: bool = True,
    omit_layers: Collection[str] = (),
    hidden_units: int = HIDDEN_UNITS,
    dropout: float = 0.5,
    initializer: str | None = None,
    bias_value: float | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build the authors' later AlexNet without groups (Krizhevsky 2014).

    See `alexnet` for arguments, layers and errors.
    """
    return alexnet(preset="one-weird-trick", **locals())


@renamed_argument("drop_layers", "omit_layers")
def alexnet_torchvision(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "alexnet_torchvision",
    groups: int = 2,
    filters: Sequence[int] | None = None,
    sixth_conv: int | None = None,
    activation: str = "relu",
    lrn: bool = True,
    overlapping_pooling: bool = True,
    omit_layers: Collection[str] = (),
    hidden_units: int = HIDDEN_UNITS,
    dropout: float = 0.5,
    initializer: str | None = None,
    bias_value: float | None = None,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build the network that torchvision calls AlexNet.

    See `alexnet` for arguments, layers and errors.
    """
    return alexnet(preset="torchvision", **locals())

"""ZFNet (Zeiler & Fergus 2013)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import keras
import numpy as np

from cnnkit.errors import UsageError, unknown_name
from cnnkit.models.ablation import check_omitted_layers
from cnnkit.models.blocks import (
    HIDDEN_UNITS,
    OVERLAPPING,
    PLAIN,
    HeadConfig,
    Stage,
    build_stages,
    classifier_head,
    input_block,
    side_after,
    stages_by_number,
)
from cnnkit.models.loading import Weights, find_weights, initializer_arguments, with_weights

INITIALIZERS = ("paper", "glorot")
WEIGHT_STDDEV = 0.01  # section 3: "1e-2", read as the standard deviation

# Zeiler & Fergus 2013 (arXiv v3), Fig. 3. Maps of 110, 55, 26, 13, 13, 13, 13 and 6 positions on a
# side come of windows that may overhang on the bottom and the right: one pixel at the first
# convolution, one row at the first two poolings. Pooling before normalization.
STAGES = (
    Stage(96, 7, 2, before=0, after=1, normalized=True, pooled=True, pool_first=True, ceil=True),
    Stage(256, 5, 2, before=0, normalized=True, pooled=True, pool_first=True, ceil=True),
    Stage(384, 3),
    Stage(384, 3),
    Stage(256, 3, pooled=True),
)


def zfnet(
    *,
    include_top: bool = True,
    weights: Weights = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
    filters: Sequence[int] = (384, 384, 256),
    activation: str = "relu",
    lrn: bool = True,
    overlapping_pooling: bool = True,
    drop_layers: Collection[str] = (),
    hidden_units: int = HIDDEN_UNITS,
    dropout: float = 0.5,
    initializer: str = "paper",
    mean: Sequence[float] | np.ndarray | None = None,
) -> keras.Model:
    """Builds ZFNet (Zeiler & Fergus 2013, arXiv v3, Fig. 3).

    Takes RGB images (n, h, w, 3) in 0..255 and returns class probabilities (n, classes). Layers:
    `conv1 pool1 norm1 conv2 pool2 norm2 conv3 conv4 conv5 pool5 fc6 fc7 fc8 probabilities`; the
    output of a convolution and of `fc6` and `fc7` is after its ReLU, that of `fc8` the logits.

    Args:
        include_top: Whether to add `fc6` to `probabilities`.
        weights: None for fresh weights, or a file of Keras, PyTorch, Caffe or NumPy, as
            `open_weights` reads it. Its mean comes along.
        input_shape: (height, width, 3); None is 224 x 224 with the top, any size without.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits; None returns the logits.
        include_preprocessing: Whether the model subtracts `mean` itself.
        name: Name of the model.
        filters: Filters of `conv3`, `conv4` and `conv5`; (512, 1024, 512) is the wider variant of
            Tables 2 and 3, of 107,627,624 parameters.
        activation: `"relu"`, or a saturating `"tanh"` or `"sigmoid"`.
        lrn: Whether to normalize. The paper does not give its constants; they are Krizhevsky's.
        overlapping_pooling: 3 x 3 windows at stride 2, or 2 x 2 windows.
        drop_layers: Layers to leave out, as in Table 3: `conv3`, `conv4`, `fc6`, `fc7`.
        hidden_units: Units of `fc6` and `fc7`; Table 3 tries 2048 and 8192.
        dropout: Fraction dropped after `fc6` and `fc7`.
        initializer: `"paper"`: normal weights, biases 0. `"glorot"`: Glorot uniform weights.
        mean: RGB mean in 0..255 that is subtracted, a color (3,) or an image (h, w, 3) at least as
            large as the input; None is that of `weights`, or ImageNet's.

    Raises:
        UsageError: If an argument is out of range, or the image too small.

    Example:
        >>> from cnnkit.models import zfnet
        >>> zfnet(classes=10, input_shape=(64, 64, 3), hidden_units=16).name
        'zfnet'
    """
    if initializer not in INITIALIZERS:
        raise unknown_name("initializer", initializer, INITIALIZERS)
    if len(filters) != 3:
        raise UsageError(
            "ZFNet is varied in its last three convolutions",
            expected="filters of conv3, conv4 and conv5",
            received=filters,
        )
    head = HeadConfig(("fc6", "fc7", "fc8"), hidden_units, dropout, activation=activation)
    varied = (replace(stage, filters=n) for stage, n in zip(STAGES[2:], filters, strict=True))
    stages = (*STAGES[:2], *varied)
    check_omitted_layers("ZFNet", drop_layers, stages, head)
    kept = stages_by_number(stages, drop_layers)
    windows = OVERLAPPING if overlapping_pooling else PLAIN

    file = find_weights(weights)

    def initializers() -> dict:
        if initializer == "glorot":
            return initializer_arguments({}, file)
        normal = keras.initializers.RandomNormal(stddev=WEIGHT_STDDEV)
        return initializer_arguments({"kernel_initializer": normal}, file)

    inputs, x = input_block(
        "ZFNet",
        input_shape,
        include_top=include_top,
        include_preprocessing=include_preprocessing,
        mean=mean,
        side_after=side_after(kept, windows),
    )
    x = build_stages(
        x,
        kept,
        groups=1,
        activation=activation,
        normalization={} if lrn else None,
        pooling=windows,
        initializers=lambda stage: initializers(),
    )
    outputs = classifier_head(
        x,
        head.without(drop_layers),
        include_top=include_top,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        hidden_initializers=initializers,
        output_initializers=initializers,
    )
    model = keras.Model(inputs, outputs, name=name or "zfnet")
    return with_weights(model, file, keep_mean=mean is not None)

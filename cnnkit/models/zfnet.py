"""ZFNet (Zeiler & Fergus 2013)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from cnnkit._deprecation import renamed_argument
from cnnkit._network_options import check_filters
from cnnkit._networks import FILTER_LAYERS, INITIALIZERS
from cnnkit.errors import unknown_name
from cnnkit.models.blocks import HIDDEN_UNITS, HeadConfig, check_arguments
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

WEIGHT_STDDEV = 0.01  # section 3: "1e-2", read as the standard deviation

# Zeiler & Fergus 2013 (arXiv v3), Fig. 3. The maps have 110, 55, 26, 13, 13, 13, 13 and 6 positions
# on a side if windows may overhang on the bottom and the right: by one pixel at the first
# convolution, by one row at the first two poolings. Pooling comes before normalization.
STAGES = (
    Stage(
        96,
        7,
        2,
        pad_before=0,
        pad_after=1,
        normalized=True,
        pooled=True,
        pool_first=True,
        ceil=True,
    ),
    Stage(256, 5, 2, pad_before=0, normalized=True, pooled=True, pool_first=True, ceil=True),
    Stage(384, 3),
    Stage(384, 3),
    Stage(256, 3, pooled=True),
)


@renamed_argument("drop_layers", "omit_layers")
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
    omit_layers: Collection[str] = (),
    hidden_units: int = HIDDEN_UNITS,
    dropout: float = 0.5,
    initializer: str = "paper",
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> keras.Model:
    """Build ZFNet (Zeiler & Fergus 2013, arXiv v3, Fig. 3).

    Takes RGB images (n, h, w, 3) in 0..255 and returns class probabilities (n, classes). Layers:
    `conv1 pool1 norm1 conv2 pool2 norm2 conv3 conv4 conv5 pool5 fc6 fc7 fc8 probabilities`; the
    output of a convolution and of `fc6` and `fc7` is after its ReLU, that of `fc8` the logits.

    Args:
        include_top: Whether to add `fc6` to `probabilities`.
        weights: None for random weights, or a file of Keras, PyTorch, Caffe or NumPy, as
            `open_weights` reads it. The model takes over the mean of the file.
        input_shape: (height, width, 3); None is 224 x 224 with the top, any size without.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits; None returns the logits.
        include_preprocessing: Whether the model subtracts `mean` itself.
        name: Name of the model.
        filters: Filters of `conv3`, `conv4` and `conv5`; (512, 1024, 512) is the wider variant of
            Tables 2 and 3, of 107,627,624 parameters.
        activation: `"relu"`, or a saturating `"tanh"` or `"sigmoid"`.
        lrn: Whether to use local response normalization. The paper does not give its constants;
            they are Krizhevsky's.
        overlapping_pooling: Whether pooling windows are 3 x 3 at stride 2 instead of 2 x 2.
        omit_layers: Layers to leave out, as in Table 3: `conv3`, `conv4`, `fc6`, `fc7`.
        hidden_units: Units of `fc6` and `fc7`; Table 3 tries 2048 and 8192.
        dropout: Fraction dropped after `fc6` and `fc7`.
        initializer: `"paper"`: normal weights, biases 0. `"glorot"`: Glorot uniform weights.
        mean: RGB mean in 0..255 that is subtracted, a color (3,) or an image (h, w, 3) at least as
            large as the input; None is that of `weights`, or ImageNet's.
        preprocessing: What the weights were trained for, where their file does not say it: a name
            as `open_weights` takes it, such as `"caffe"` or `"torch"`, or a `Preprocessing`.

    Raises:
        UsageError: If an argument is out of range, or the image is too small.

    Example:
        >>> from cnnkit.models import zfnet
        >>> zfnet(classes=10, input_shape=(64, 64, 3), hidden_units=16).name
        'zfnet'
    """
    check_arguments(locals())
    if initializer not in INITIALIZERS:
        raise unknown_name("initializer", initializer, INITIALIZERS)
    check_filters("ZFNet", filters, FILTER_LAYERS["zfnet"])
    last = (replace(stage, filters=n) for stage, n in zip(STAGES[2:], filters, strict=True))
    head = HeadConfig(("fc6", "fc7", "fc8"), hidden_units, dropout, activation=activation)
    stages, head = omit_layers_from("ZFNet", (*STAGES[:2], *last), head, omit_layers)
    network = StagedNetwork(
        "ZFNet",
        stages,
        head,
        activation,
        normalization={} if lrn else None,
        pooling=OVERLAPPING if overlapping_pooling else NON_OVERLAPPING,
    )

    def initializers() -> dict[str, Any]:
        if initializer == "glorot":
            return {}
        return {"kernel_initializer": keras.initializers.RandomNormal(stddev=WEIGHT_STDDEV)}

    return build_staged_network(
        network,
        LayerInitializers(lambda stage: initializers(), initializers, initializers),
        name=name or "zfnet",
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

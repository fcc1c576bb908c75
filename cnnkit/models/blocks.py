"""Parts that all networks share: the input, the activation and the classifier head."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from cnnkit._network_options import ARGUMENTS, ImageTooSmall, check_values
from cnnkit._networks import ACTIVATIONS
from cnnkit.errors import UsageError, unknown_name, warn
from cnnkit.layers import ClassProbabilities, Dropout, ReLU, SubtractMean
from cnnkit.models.preprocessing import (
    IMAGENET_MEAN,
    PRESETS,
    Preprocessing,
    override_preprocessing,
)

POOLINGS = ("avg", "max")
HIDDEN_UNITS = 4096
IMAGE_SIZE = 224
# The search for the smallest image that a network takes ends here.
LARGEST_SEARCHED_SIDE = 1024


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check the types and the ranges of a builder's arguments, by name.

    The values that only one builder knows, such as its presets, are checked by that builder.

    Args:
        arguments: Arguments by name. Names that no builder of the package has are ignored.

    Raises:
        UsageError: If a value is wrong; the argument is named.
    """
    check_values(arguments, ARGUMENTS)
    check_values(arguments, _ARGUMENTS)
    activation = arguments.get("classifier_activation")
    if activation is not None and not callable(activation):
        _check_keras_activation(activation)


def _check_keras_activation(activation: object) -> None:
    known = sorted(name for name in dir(keras.activations) if name.islower() and name[0] != "_")
    known = [name for name in known if name not in ("deserialize", "get", "serialize")]
    if not isinstance(activation, str) or activation not in known:
        raise unknown_name("`classifier_activation`", activation, known)


def _is_mean(value: Any) -> bool:
    try:
        array = np.asarray(value, "float64")
    except (TypeError, ValueError):
        return False
    return array.shape[-1:] == (3,) and array.ndim in (1, 3) and bool(np.isfinite(array).all())


# Arguments whose check needs Keras or arrays; `cnnkit._network_options` has the others.
_ARGUMENTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "mean": (
        "None for ImageNet's, or finite numbers of shape (3,) or (height, width, 3), RGB in 0..255",
        lambda value: value is None or _is_mean(value),
    ),
    "preprocessing": (
        f"None, a Preprocessing, or one of {', '.join(PRESETS)}",
        lambda value: (
            value is None
            or isinstance(value, Preprocessing)
            or (isinstance(value, str) and value in PRESETS)
        ),
    ),
}


def activation_argument(kind: str) -> keras.layers.Layer | str:
    """Return the value for the `activation=` argument of a layer.

    Raises:
        UsageError: If there is no such activation.
    """
    if kind not in ACTIVATIONS:
        raise unknown_name("activation", kind, ACTIVATIONS)
    return ReLU() if kind == "relu" else kind


def activation_layer(kind: str, name: str) -> keras.layers.Layer:
    """Return a layer that applies an activation and nothing else."""
    return ReLU(name=name) if kind == "relu" else keras.layers.Activation(kind, name=name)


def input_block(
    network: str,
    input_shape: Sequence[int | None] | None,
    *,
    size: int = IMAGE_SIZE,
    include_top: bool,
    include_preprocessing: bool,
    mean: Sequence[float] | np.ndarray | None,
    preprocessing: str | Preprocessing | None,
    final_side: Callable[[int], int],
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return the input tensor of a network and the tensor that its first convolution takes.

    Args:
        network: Name of the network in error messages.
        input_shape: (height, width, 3); None is `size` with the top and any size without.
        size: Side of the images that the network was designed for.
        include_top: Whether a dense head follows, which needs a known height and width.
        include_preprocessing: Whether the model subtracts `mean` itself.
        mean: RGB mean in 0..255, (3,) or at least (height, width, 3); None is ImageNet's color.
        preprocessing: Mean and deviation by a name, or a `Preprocessing`; `mean` replaces its mean.
        final_side: Maps a side of the input to the side of the last feature map.

    Raises:
        UsageError: If `input_shape` is not that of an RGB image, or too small for the network.
    """
    if input_shape is None:
        side = size if include_top else None
        input_shape = (side, side, 3)
    # Keras takes Python's numbers only.
    shape = tuple(side if side is None else int(side) for side in input_shape)
    if len(shape) != 3 or shape[2] != 3:
        raise UsageError(
            "`input_shape` must be that of RGB images",
            expected="`input_shape=(height, width, 3)`",
            received=shape,
        )
    sides = shape[:2]
    if include_top and None in sides:
        raise UsageError(
            "`input_shape` must hold a known image size for the dense head",
            expected="a height and a width in input_shape",
            received=shape,
            hint="Give both, or pass `include_top=False`",
        )
    least = least_side(final_side)
    if any(side is not None and side < least for side in sides):
        raise ImageTooSmall(network, least, f"{shape[0]} x {shape[1]}")
    inputs = keras.Input(shape, name="images")
    if not include_preprocessing:
        return inputs, inputs
    if mean is not None and 0 < np.max(mean) < 1:
        warn(
            "`mean` lies in 0..1, and images in 0..255: multiply a mean of PyTorch by 255",
            stacklevel=4,
        )
    chosen = override_preprocessing(Preprocessing(IMAGENET_MEAN), preprocessing)
    chosen = (chosen if mean is None else replace(chosen, mean=mean)).for_size(*sides)
    return inputs, SubtractMean(chosen.mean, chosen.std, name="preprocessing")(inputs)


def least_side(final_side: Callable[[int], int]) -> int:
    """Return the smallest side of an image that leaves one position in the last feature map."""
    return next(side for side in range(1, LARGEST_SEARCHED_SIDE) if final_side(side) >= 1)


@dataclass(frozen=True)
class HeadConfig:
    """The dense layers at the end of a network.

    Attributes:
        names: Names of the hidden layers and, last, of the layer of the logits.
        units: Units of a hidden layer.
        dropout: Fraction of the units that is dropped at each hidden layer.
        dropout_first: Whether the dropout comes before its hidden layer instead of after it.
        activation: Activation of the hidden layers.
    """

    names: tuple[str, ...]
    units: int = HIDDEN_UNITS
    dropout: float = 0.5
    dropout_first: bool = False
    activation: str = "relu"

    def without(self, names: Collection[str]) -> HeadConfig:
        """Return the head without the hidden layers `names`."""
        return replace(self, names=tuple(name for name in self.names if name not in names))


def classifier_head(
    x: keras.KerasTensor,
    head: HeadConfig,
    *,
    include_top: bool,
    pooling: str | None,
    classes: int,
    classifier_activation: str | None,
    hidden_initializers: Callable[[], dict[str, Any]],
    output_initializers: Callable[[], dict[str, Any]],
) -> keras.KerasTensor:
    """Return the output tensor of a network from its last feature map.

    Two layers make the probabilities: the logits, and `probabilities`. Both are float32 under every
    dtype policy, because top-k accuracy and a softmax over a thousand classes need it.

    Args:
        x: Last feature map, (n, h, w, c).
        head: The dense layers.
        include_top: Whether to add them.
        pooling: Without the top: None, `"avg"` or `"max"` over the positions.
        classes: Number of classes.
        classifier_activation: Activation over the logits; None returns the logits.
        hidden_initializers: Makes the initializer arguments of a hidden layer.
        output_initializers: Makes the initializer arguments of the layer of the logits.

    Raises:
        UsageError: If `pooling` is unknown or given with the top, or `classes` or the number of
            hidden units is below 1.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    if not include_top:
        if pooling == "avg":
            return keras.layers.GlobalAveragePooling2D("channels_last", name="global_pool")(x)
        if pooling == "max":
            return keras.layers.GlobalMaxPooling2D("channels_last", name="global_pool")(x)
        return x
    if pooling is not None:
        raise UsageError(
            "`pooling` must be None with the dense head, which it replaces",
            expected="`pooling=None`, or `include_top=False`",
            received=f"`pooling={pooling!r}`, `include_top=True`",
        )
    x = keras.layers.Flatten("channels_last", name="flatten")(x)
    *hidden, logits = head.names
    for name in hidden:
        dense = keras.layers.Dense(
            int(head.units),
            activation=activation_argument(head.activation),
            name=name,
            **hidden_initializers(),
        )
        dropout = Dropout(float(head.dropout), name=f"{name}_dropout")
        x = dense(dropout(x)) if head.dropout_first else dropout(dense(x))
    x = keras.layers.Dense(int(classes), dtype="float32", name=logits, **output_initializers())(x)
    if classifier_activation is None:
        return x
    return ClassProbabilities(classifier_activation, dtype="float32", name="probabilities")(x)

"""Convert a dense head to convolutions, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import ReLU
from cnnkit.models.surgery.sequential import (
    ChainLayer,
    SequentialChain,
    as_sequential,
    build_model,
    check_image_input,
    check_image_size,
    copy_layers,
    rebuild_layer,
    spatial_maps,
)

# Layers that act on every number alone: they may come before or after the Flatten.
ELEMENTWISE = (keras.layers.Dropout, keras.layers.LeakyReLU, keras.layers.ReLU, ReLU)
# Layers that act on every position alone.
POSITIONWISE = (
    *ELEMENTWISE,
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.Softmax,
)


def dense_head(chain: SequentialChain) -> int | None:
    """Return the index of the Flatten between the last map and a dense layer, or None."""
    kinds = [type(layer) for layer in chain.layers]
    if keras.layers.Flatten not in kinds:
        return None
    start = kinds.index(keras.layers.Flatten)
    if len(chain.shapes[start]) != 4:
        return None
    return start if any(issubclass(kind, keras.layers.Dense) for kind in kinds[start:]) else None


def check_dense_head(chain: SequentialChain, start: int) -> None:
    """Check that the dense head of `chain` has an equivalent of convolutions.

    Args:
        chain: The network.
        start: Index of the Flatten.

    Raises:
        UsageError: If a layer has no equivalent. The error names the layer.
    """
    allowed: tuple[type, ...] = ELEMENTWISE
    for layer in chain.layers[start + 1 :]:
        if isinstance(layer, keras.layers.Dense):
            allowed = POSITIONWISE
        elif not (isinstance(layer, allowed) and _over_channels(layer, 2)):
            raise UsageError(
                f"Layer {layer.name!r} of the dense head has no convolutional counterpart",
                expected="dense layers, dropout, activations and batch normalization, the last two"
                " after a dense layer and over the channels",
                received=type(layer).__name__,
            )


def convolutional_head(chain: SequentialChain, first: str | None = None) -> int | None:
    """Return the index of the first layer of the convolutional head, or None without a head.

    The head consists of the last layers that are 1 x 1 convolutions or act on every position alone.
    A larger convolution right before them is its first layer, like one over the whole map.

    Args:
        chain: The network.
        first: Name of the first layer, if the rule would take too many.

    Raises:
        UsageError: If there is no layer `first`, or the head cannot start with it.
    """
    start = None
    for position in reversed(range(len(chain.layers))):
        layer = chain.layers[position]
        if is_window(layer):
            start = position
            if first == layer.name or max(layer.kernel_size) > 1:
                break
        elif not (isinstance(layer, POSITIONWISE) and _over_channels(layer, 4)):
            break
    if first is None:
        return start
    names = [layer.name for layer in chain.layers]
    if first not in names:
        raise unknown_name("layer", first, names)
    if start is None or names[start] != first:
        raise UsageError(
            "`first` must name a layer that the head can start with",
            expected="a convolution of stride 1 without padding, and only 1 x 1 ones after it",
            received=f"first={first!r}",
        )
    return start


def is_window(layer: keras.layers.Layer) -> bool:
    """Return True for a convolution that can be a dense layer: no padding, stride 1, 1 group."""
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.groups == 1
        and set(layer.strides) == set(layer.dilation_rate) == {1}
        and (layer.padding == "valid" or set(layer.kernel_size) == {1})
    )


def _over_channels(layer: keras.layers.Layer, rank: int) -> bool:
    return getattr(layer, "axis", -1) in (-1, rank - 1)


# Configuration keys that dense layers and convolutions share.
SHARED = (
    "name", "trainable", "dtype", "activation", "use_bias", "kernel_initializer",
    "bias_initializer", "kernel_regularizer", "bias_regularizer", "activity_regularizer",
    "kernel_constraint", "bias_constraint",
)  # fmt: skip
# A constraint's axes over a dense kernel (inputs, outputs), and over (h, w, inputs, outputs).
AXES = ((0, [0, 1, 2]), (1, 3))


def to_fully_convolutional(model: keras.Model) -> keras.Model:
    """Convert the dense head to convolutions, so that the network takes images of any size.

    The first dense layer becomes a convolution over the whole last map, those after it 1 x 1
    convolutions (Simonyan & Zisserman 2014, section 3.2). Names and weights stay, the Flatten is
    left out, and a softmax is over the channels at every position. For images of the size of
    `model` the output map has one position with the same numbers. A larger image gives a map of
    scores, as if the network had been applied at every position, 32 pixels apart for VGG. Padded
    convolutions then see zeros at the border of the whole image only.

    Args:
        model: A chain of layers (n, h, w, c) -> (n, classes), with a Flatten and dense layers.

    Returns:
        A new model, (n, None, None, c) -> (n, rows, columns, classes).

    Raises:
        UsageError: If there is no such head, or the model is fully convolutional already.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import to_fully_convolutional
        >>> network = to_fully_convolutional(alexnet(input_shape=(64, 64, 3), classes=3))
        >>> network.compute_output_shape((1, 192, 128, 3))
        (1, 5, 3, 3)
    """
    chain = as_sequential(model)
    check_image_input(chain)
    start = dense_head(chain)
    if start is None:
        if convolutional_head(chain) is not None:
            raise UsageError(f"Model {chain.name!r} is fully convolutional already")
        raise UsageError(
            f"Model {chain.name!r} has no dense head",
            expected="a Flatten and dense layers at the end",
            received=f"{type(chain.layers[-1]).__name__} {chain.layers[-1].name!r} at the end",
        )
    check_dense_head(chain, start)
    parts = copy_layers(chain.layers[:start])
    shape: tuple[Any, ...] = chain.shapes[start][1:]
    for layer in chain.layers[start + 1 :]:
        if not isinstance(layer, keras.layers.Dense):
            parts.append(ChainLayer(_over_last_axis(layer), layer.get_weights()))
            continue
        kernel, *bias = _kernel_and_bias(layer)
        convolution = keras.layers.Conv2D.from_config(
            {
                **_shared(layer, to_convolution=True),
                "filters": layer.units,
                "kernel_size": shape[:2],
                "data_format": "channels_last",
            }
        )
        parts.append(ChainLayer(convolution, [kernel.reshape(*shape, layer.units), *bias]))
        shape = (1, 1, layer.units)
    return build_model(chain, parts, (None, None))


def to_classifier(
    model: keras.Model, input_shape: Sequence[int], *, first: str | None = None
) -> keras.Model:
    """Convert a convolutional head to dense layers: the inverse of `to_fully_convolutional`.

    The weights are those of `model`. A layer called `flatten` comes before the head.

    Args:
        model: A chain of layers whose end is a convolution without padding, then 1 x 1 ones.
        input_shape: (height, width, channels) of the images. The first convolution of the head
            must cover the whole map that the layers before it make of such an image.
        first: Name of the first layer of the head. None is the larger convolution before the 1 x 1
            ones, or the first of these. Name the layer if that would make an ordinary convolution
            part of the head.

    Returns:
        A new model, (n, height, width, channels) -> (n, classes).

    Raises:
        UsageError: If there is no such head, or it does not cover the map.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import to_classifier, to_fully_convolutional
        >>> network = to_fully_convolutional(alexnet(input_shape=(64, 64, 3), classes=3))
        >>> to_classifier(network, (64, 64, 3)).output_shape
        (None, 3)
    """
    chain = as_sequential(model)
    check_image_input(chain)
    shape = tuple(input_shape)
    channels = chain.source.batch_shape[-1]
    if len(shape) != 3 or shape[2] != channels:
        raise UsageError(
            f"`input_shape` of {chain.name!r} must have {channels} channels",
            expected=f"input_shape=(height, width, {channels})",
            received=shape,
        )
    sides = check_image_size(shape[:2])
    start = None if dense_head(chain) is not None else convolutional_head(chain, first)
    if start is None:
        raise UsageError(
            f"Model {chain.name!r} has no convolutional head",
            expected="a convolution of stride 1 without padding, and only 1 x 1 ones after it",
            received=f"{type(chain.layers[-1]).__name__} {chain.layers[-1].name!r} at the end",
        )
    window, found = chain.layers[start].kernel_size, spatial_maps(chain, sides)[start]
    if found != tuple(window):
        raise UsageError(
            "`input_shape` must give a map of the size of the kernel of"
            f" {chain.layers[start].name!r}",
            expected=f"a map of {window[0]} x {window[1]}",
            received=f"{found[0]} x {found[1]} from an image of {sides[0]} x {sides[1]}",
            hint="Pass the size that the network was trained on",
        )
    # A dropout right before the head belongs to it, as in the later AlexNet without groups.
    while start and isinstance(chain.layers[start - 1], keras.layers.Dropout):
        start -= 1
    parts = copy_layers(chain.layers[:start])
    name = "flatten"
    while name in (layer.name for layer in chain.layers):
        name += "_"
    parts.append(ChainLayer(keras.layers.Flatten(name=name, data_format="channels_last"), []))
    for layer in chain.layers[start:]:
        if not isinstance(layer, keras.layers.Conv2D):
            parts.append(ChainLayer(_over_last_axis(layer), layer.get_weights()))
            continue
        kernel, *bias = _kernel_and_bias(layer)
        dense = keras.layers.Dense.from_config(
            {**_shared(layer, to_convolution=False), "units": layer.filters}
        )
        parts.append(ChainLayer(dense, [kernel.reshape(-1, layer.filters), *bias]))
    return build_model(chain, parts, sides)


def _shared(layer: keras.layers.Layer, *, to_convolution: bool) -> dict[str, Any]:
    config = layer.get_config()
    shared = {key: config[key] for key in SHARED if key in config}
    constraint = shared["kernel_constraint"]
    if constraint is not None and "axis" in constraint["config"]:
        axis = constraint["config"]["axis"]
        for dense, convolution in AXES:
            old, new = (dense, convolution) if to_convolution else (convolution, dense)
            if axis == old:
                config = {**constraint["config"], "axis": new}
                return {**shared, "kernel_constraint": {**constraint, "config": config}}
    return shared


def _over_last_axis(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Rebuild `layer` for the last axis, that of the channels before and after a Flatten."""
    return rebuild_layer(layer, axis=-1) if hasattr(layer, "axis") else rebuild_layer(layer)


def _kernel_and_bias(layer: keras.layers.Layer) -> list[np.ndarray]:
    weights = layer.get_weights()
    if len(weights) != 1 + layer.use_bias:
        raise UsageError(
            f"Layer {layer.name!r} has weights besides a kernel and a bias",
            expected=f"{1 + layer.use_bias} weights",
            received=len(weights),
            hint="Merge low-rank updates and undo quantization first",
        )
    return weights

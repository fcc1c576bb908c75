"""Matching the layers of a weights file with those of a network."""

from __future__ import annotations

import re
from collections.abc import Iterable

import keras
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.layers import LocalResponseNormalization
from cnnkit.models.weights.weights_file import OIHW, LRNParameters, StoredLayer, WeightsFile

# The dense layers of VGG have two names each.
ALIASES = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
# Caffe's files store constants in float32, so they are compared to six digits.
DIGITS = 6


def match_layers(
    model: keras.Model, file: WeightsFile
) -> list[tuple[keras.layers.Layer, StoredLayer]]:
    """Return pairs of a layer of the network and the layer of the file with its weights.

    Args:
        model: The network. Without dense layers, those of the file are left out.
        file: Result of `open_weights`.

    Raises:
        UsageError: If a layer is missing on either side, or a shape differs.
    """
    targets = [layer for layer in model.layers if hasattr(layer, "kernel")]
    stored = list(file.layers)
    named = {canonical_name(layer.name): layer for layer in stored}
    in_order = list(zip(targets, stored, strict=False))
    # Names such as conv2d_1 say the order only.
    says_order_only = (
        not any(canonical_name(layer.name) in named for layer in targets)
        and len(in_order) == len(targets)
        and all(_stored_shape(*pair, file) == tuple(pair[0].kernel.shape) for pair in in_order)
    )
    if file.match_by_name and not says_order_only:
        missing = [layer for layer in targets if canonical_name(layer.name) not in named]
        pairs = [
            (layer, named[canonical_name(layer.name)]) for layer in targets if layer not in missing
        ]
    else:
        missing = targets[len(stored) :]
        pairs = in_order
    for layer, found in pairs:
        _check_shapes(model, layer, found, file)
    if missing:
        only_head = all(isinstance(layer, keras.layers.Dense) for layer in missing)
        raise UsageError(
            f"{file.path} has no weights for layer {missing[0].name!r} of {model.name}",
            expected=_join_names(targets),
            received=_join_names(stored),
            hint="`include_top=False` takes the convolutions alone" if only_head else None,
        )
    taken = {id(found) for _, found in pairs}
    has_head = any(isinstance(layer, keras.layers.Dense) for layer in targets)
    left = [
        found
        for found in stored
        if id(found) not in taken and (has_head or not file.is_dense(found))
    ]
    if left:
        raise UsageError(
            f"{file.path} has a layer that {model.name} lacks: {left[0].kernel}",
            expected=_join_names(targets),
        )
    return pairs


def canonical_name(name: str) -> str:
    """Return one name for the names that a layer can have.

    Example:
        >>> canonical_name("block3_conv2"), canonical_name("fc1"), canonical_name("fc8_flickr")
        ('conv3_2', 'fc6', 'fc8')
    """
    name = re.sub(r"^block(\d+)_conv(\d+)$", r"conv\1_\2", name)
    # Caffe trains the last layer anew under another name, usually with a suffix.
    name = re.sub(r"^fc8[-_]\w+$", "fc8", name)
    return ALIASES.get(name, name)


def _join_names(layers: Iterable[keras.layers.Layer | StoredLayer]) -> str:
    return ", ".join(layer.name for layer in layers)


def _check_shapes(
    model: keras.Model, layer: keras.layers.Layer, stored: StoredLayer, file: WeightsFile
) -> None:
    kernel, bias = stored.kernel, stored.bias
    expected = tuple(layer.kernel.shape)
    found = _stored_shape(layer, stored, file)
    if found != expected:
        raise UsageError(
            f"{file.path} does not fit {model.name}: {kernel} is not the kernel of {layer.name!r}",
            expected=f"{_to_stored_axes(expected, file.kernel_layout)}, in the axes of this file",
            received=kernel.shape,
            hint=_shape_hint(expected, found),
        )
    if (bias is None) == layer.use_bias or (bias and bias.shape != tuple(layer.bias.shape)):
        raise UsageError(
            f"{file.path} does not fit {model.name}: the bias of {layer.name!r}",
            expected=tuple(layer.bias.shape) if layer.use_bias else "none",
            received=bias or "none",
        )


def _stored_shape(
    layer: keras.layers.Layer, stored: StoredLayer, file: WeightsFile
) -> tuple[int, ...]:
    """Return the shape of a kernel of the file as that of the layer."""
    found = _to_keras_axes(stored.kernel.shape, file.kernel_layout)
    if isinstance(layer, keras.layers.Dense) and len(found) == 4:
        return (int(np.prod(found[:3])), found[3])
    return found


def _shape_hint(expected: tuple[int, ...], found: tuple[int, ...]) -> str | None:
    if len(expected) == 2 and len(found) == 2 and expected[0] == found[0]:
        return f"Build it with classes={found[1]}, or replace_head afterwards"
    if len(expected) == 4 and len(found) == 4 and expected[2] == 2 * found[2]:
        return "The file has two towers: build it with groups=2, and ungroup it afterwards"
    if len(expected) == 4 and len(found) == 4 and found[2] == 2 * expected[2]:
        return "The file has one tower: build it with groups=1"
    return None


def _to_keras_axes(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    if layout != OIHW:
        return tuple(shape)
    return (*shape[2:], shape[1], shape[0])


def _to_stored_axes(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    if layout != OIHW:
        return tuple(shape)
    return (shape[-1], shape[-2], *shape[:-2])


def check_normalization_match(model: keras.Model, file: WeightsFile) -> None:
    """Check that the network normalizes like the one that the weights were trained in.

    Weights of a network with another normalization fit by shape but give wrong outputs.

    Args:
        model: The network.
        file: Result of `open_weights`.

    Raises:
        UsageError: If the file declares other parameters of a normalization, another order of
            normalization and pooling, or no normalization.
    """
    layers = {x.name: x for x in model.layers if isinstance(x, LocalResponseNormalization)}
    if file.normalizations is None and layers:
        raise UsageError(
            f"{file.path} is of a network without normalization, which {model.name} has",
            hint="For torchvision's AlexNet: `preset='torchvision'`; for others: `lrn=False`",
        )
    if file.normalizations and len(file.normalizations) != len(layers):
        raise UsageError(
            f"{file.path} was trained with other normalization layers than {model.name} has",
            expected=", ".join(layers) or "none",
            received=", ".join(file.normalizations),
        )
    # In order, because VGG's normalization has another name in Caffe.
    for (name, layer), declared in zip(
        layers.items(), (file.normalizations or {}).values(), strict=False
    ):
        if _rounded(declared) != _rounded(_parameters(layer)):
            raise UsageError(
                f"{file.path} was trained with another normalization {name!r} than {model.name}",
                expected=_parameters(layer),
                received=declared,
                hint="Build the network with the preset that the file was trained with",
            )
    names = [layer.name for layer in model.layers]
    for name in layers:
        pool = name.replace("norm", "pool")
        if file.norms_after_pooling is None or pool not in names:
            continue
        pool_first = names.index(pool) < names.index(name)
        if pool_first != (name in file.norms_after_pooling):
            raise UsageError(
                f"{file.path} was trained with {name!r} {'before' if pool_first else 'after'} its"
                f" pooling, {model.name} has it {'after' if pool_first else 'before'}",
                hint="`preset='caffe'` normalizes first, `preset='caffenet'` pools first",
            )


def _parameters(layer: LocalResponseNormalization) -> LRNParameters:
    within_channel = layer.region == "within"
    cells = layer.size**2 if within_channel else layer.size
    alpha = layer.alpha / cells if layer.alpha_convention == "mean" else layer.alpha
    return LRNParameters(layer.size, alpha, layer.beta, layer.k, within_channel)


def _rounded(lrn: LRNParameters) -> tuple[object, ...]:
    constants = (float(f"{value:.{DIGITS}g}") for value in (lrn.alpha, lrn.beta, lrn.k))
    return (lrn.size, lrn.within_channel, *constants)

"""Which layer of a weights file belongs to which of a network."""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.layers import LocalResponseNormalization
from cnnkit.models.weights.weights_file import OIHW, LRNParameters, StoredLayer, WeightsFile

# The dense layers of VGG have two names each.
SAME = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}


def match_layers(
    model: keras.Model, file: WeightsFile
) -> list[tuple[keras.layers.Layer, StoredLayer]]:
    """Returns which layer of the file belongs to which of the network.

    Raises:
        UsageError: If they are not the same layers, or a shape differs.
    """
    targets = [layer for layer in model.layers if hasattr(layer, "kernel")]
    stored = list(file.layers)
    if file.by_name:
        named = {canonical_name(layer.name): layer for layer in stored}
        missing = [layer for layer in targets if canonical_name(layer.name) not in named]
        pairs = [
            (layer, named[canonical_name(layer.name)]) for layer in targets if layer not in missing
        ]
    else:
        missing = targets[len(stored) :]
        pairs = list(zip(targets, stored, strict=False))
    for layer, found in pairs:
        _check_shape(model, layer, found, file)
    if missing:
        only_head = all(isinstance(layer, keras.layers.Dense) for layer in missing)
        raise UsageError(
            f"{file.path} has no weights for layer {missing[0].name!r} of {model.name}",
            expected=_names(targets),
            received=_names(stored),
            hint="include_top=False takes the convolutions alone" if only_head else None,
        )
    taken = {id(found) for _, found in pairs}
    # Without its head a network leaves the head of the file alone.
    has_head = any(isinstance(layer, keras.layers.Dense) for layer in targets)
    left = [
        found
        for found in stored
        if id(found) not in taken and (has_head or not file.is_dense(found))
    ]
    if left:
        raise UsageError(
            f"{file.path} has a layer that {model.name} lacks: {left[0].kernel}",
            expected=_names(targets),
        )
    return pairs


def canonical_name(name: str) -> str:
    """Returns one name for the names that the field has for a layer of VGG."""
    name = re.sub(r"^block(\d+)_conv(\d+)$", r"conv\1_\2", name)
    return SAME.get(name, name)


def _names(layers: Sequence) -> str:
    return ", ".join(layer.name for layer in layers)


def _check_shape(model, layer, stored: StoredLayer, file: WeightsFile) -> None:
    kernel, bias = stored.kernel, stored.bias
    expected = tuple(layer.kernel.shape)
    found = _as_keras(kernel.shape, file.layout)
    if isinstance(layer, keras.layers.Dense) and len(found) == 4:
        found = (int(np.prod(found[:3])), found[3])
    if found != expected:
        raise UsageError(
            f"{file.path} does not fit {model.name}: {kernel} is not the kernel of {layer.name!r}",
            expected=f"{_as_stored(expected, file.layout)}, as this file lays kernels",
            received=kernel.shape,
            hint=_hint(expected, found),
        )
    if (bias is None) == layer.use_bias or (bias and bias.shape != tuple(layer.bias.shape)):
        raise UsageError(
            f"{file.path} does not fit {model.name}: the bias of {layer.name!r}",
            expected=tuple(layer.bias.shape) if layer.use_bias else "none",
            received=bias or "none",
        )


def _hint(expected: tuple[int, ...], found: tuple[int, ...]) -> str | None:
    if len(expected) == 2 and len(found) == 2 and expected[0] == found[0]:
        return f"Build it with classes={found[1]}, or replace_head afterwards"
    if len(expected) == 4 and len(found) == 4 and expected[2] == 2 * found[2]:
        return "The file has two towers: build it with groups=2, and ungroup it afterwards"
    if len(expected) == 4 and len(found) == 4 and found[2] == 2 * expected[2]:
        return "The file has one tower: build it with groups=1"
    return None


def _as_keras(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    if layout != OIHW:
        return tuple(shape)
    return (*shape[2:], shape[1], shape[0])


def _as_stored(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    if layout != OIHW:
        return tuple(shape)
    return (shape[-1], shape[-2], *shape[:-2])


DIGITS = 6  # Caffe's files keep constants in float32.


def check_normalization_match(model: keras.Model, file: WeightsFile) -> None:
    """Refuses weights of a network that normalizes in another way: they fit, and mean nothing.

    Raises:
        UsageError: If the file declares another normalization, another place for it, or none.
    """
    ours = {x.name: x for x in model.layers if isinstance(x, LocalResponseNormalization)}
    if file.normalizations is None and ours:
        raise UsageError(
            f"{file.path} is of a network without normalization, which {model.name} has",
            hint="For torchvision's AlexNet: preset='torchvision'",
        )
    for name, layer in ours.items():
        declared = (file.normalizations or {}).get(name)
        if declared is not None and _rounded(declared) != _rounded(_declaration(layer)):
            raise UsageError(
                f"{file.path} was trained with another normalization {name!r} than {model.name}",
                expected=_declaration(layer),
                received=declared,
                hint="Build the network with the preset that the file was trained with",
            )
    names = [layer.name for layer in model.layers]
    for name in ours:
        pool = name.replace("norm", "pool")
        if file.pooled_first is None or pool not in names:
            continue
        ours_first = names.index(pool) < names.index(name)
        if ours_first != (name in file.pooled_first):
            raise UsageError(
                f"{file.path} was trained with {name!r} {'before' if ours_first else 'after'} its"
                f" pooling, {model.name} has it {'after' if ours_first else 'before'}",
                hint="preset='caffe' normalizes first, preset='caffenet' pools first",
            )


def _declaration(layer: LocalResponseNormalization) -> LRNParameters:
    within = layer.region == "within"
    cells = layer.size**2 if within else layer.size
    alpha = layer.alpha / cells if layer.alpha_convention == "mean" else layer.alpha
    return LRNParameters(layer.size, alpha, layer.beta, layer.k, within)


def _rounded(one: LRNParameters) -> tuple:
    return (one.size, one.within, *(float(f"{x:.{DIGITS}g}") for x in (one.alpha, one.beta, one.k)))

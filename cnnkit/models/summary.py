"""Summaries of networks: parameters, multiply-adds, receptive fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from cnnkit.models.layer_window import window_of
from cnnkit.models.registry import build
from cnnkit.models.surgery.sequential import as_sequential

FLOAT_BYTES = 4


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a network.

    Attributes:
        name: Name of the layer.
        kind: Name of its class.
        output_shape: (h, w, c) or (units,); a side is None if it depends on the image.
        kernel: Side of its windows; None for a layer without windows.
        stride: Step of its windows.
        parameters: Number of its weights.
        multiply_adds: Multiply-adds for one image; None if they depend on the size of the image.
        receptive_field: Side of the receptive field in pixels; None for a dense layer.
        activation_bytes: Bytes of its output for one image in float32; None if they depend on the
            size of the image.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    kernel: int | None
    stride: int
    parameters: int
    multiply_adds: int | None
    receptive_field: int | None
    activation_bytes: int | None


@contextmanager
def build_without_weights(name: str, **options: Any) -> Iterator[keras.Model]:
    """Yield a network without memory for its weights, of which only shapes can be read."""
    with keras.StatelessScope(initialize_variables=False):
        try:
            yield build(name, **options)
        finally:
            # Keras would fill every weight at the end of the next such scope.
            keras.utils.clear_session(free_memory=False)


def summarize_network(model: keras.Model) -> list[LayerSummary]:
    """Return a summary of each layer of a chain of layers.

    Raises:
        UsageError: If the layers of the model form no chain.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models import summarize_network
        >>> rows = summarize_network(alexnet(include_top=False, input_shape=(224, 224, 3)))
        >>> [(row.name, row.receptive_field) for row in rows if row.name == "conv5"]
        [('conv5', 163)]
    """
    chain = as_sequential(model)
    outputs = [*chain.shapes[1:], tuple(model.outputs[0].shape)]
    rows = []
    field: int | None = 1
    step = 1
    for layer, (_, *sides) in zip(chain.layers, outputs, strict=True):
        shape = tuple(sides)
        look, _ = window_of(layer) or (None, None)
        if look is None or look.kernel is None:
            # An unknown layer, or the whole map: later layers have no square receptive field.
            field, kernel, stride = None, 1, 1
        else:
            kernel, stride = look.extent(0), look.stride
        if field is not None:
            field, step = field + (kernel - 1) * step, step * stride
        rows.append(
            LayerSummary(
                layer.name,
                type(layer).__name__,
                shape,
                kernel if kernel > 1 or isinstance(layer, keras.layers.Conv2D) else None,
                stride,
                layer.count_params(),
                _multiply_adds(layer, shape),
                field,
                None if None in shape else math.prod(shape) * FLOAT_BYTES,
            )
        )
    return rows


def layer_macs(rows: Sequence[LayerSummary]) -> int:
    """Return the multiply-adds of one image in all layers."""
    return sum(row.multiply_adds or 0 for row in rows)


def _multiply_adds(layer: keras.layers.Layer, shape: tuple[int | None, ...]) -> int | None:
    sides = [side for side in shape if side is not None]
    if len(sides) < len(shape):
        return None
    if isinstance(layer, keras.layers.Conv2D):
        return math.prod(sides[:2]) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.Dense):
        return math.prod(sides[:-1]) * math.prod(layer.kernel.shape)
    return 0

"""The same network for images of another size."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from cnnkit.models.surgery.fully_convolutional import dense_head
from cnnkit.models.surgery.sequential import (
    ChainLayer,
    SurgeryResult,
    as_sequential,
    build_model,
    carry_weights,
    check_image_count,
    check_image_size,
    spatial_maps,
    with_layer_weights,
)


def resize_input(model: keras.Model, size: int | Sequence[int]) -> SurgeryResult:
    """Returns the same network, with its weights, for images of another size.

    Convolutions do not mind the size. A dense head comes along whole where the last map keeps its
    height and width. Otherwise the first dense layer is made anew by its own initializer, because
    its weights belong to positions that are no more, and the rest of the head comes along; whoever
    wants the trained head at larger sizes wants `to_fully_convolutional`.

    Args:
        model: A chain of layers that takes (n, h, w, c).
        size: The side of a square image, or (height, width).

    Returns:
        A `SurgeryResult`: the new model, and the layers that came along or are fresh.

    Raises:
        UsageError: If the model is no chain, or the size too small; the least size is named.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import resize_input
        >>> resize_input(alexnet(input_shape=(64, 64, 3), classes=3), (96, 64)).fresh
        ('fc6',)
    """
    chain = as_sequential(model)
    check_image_count(chain)
    sides = check_image_size(size)
    found = spatial_maps(chain, sides)
    parts = carry_weights(chain.layers)
    start = dense_head(chain)
    # By layout and not by the flattened size alone: 2 x 3 positions are other ones than 3 x 2.
    if start is not None and found[start] != chain.shapes[start][1:3]:
        for position in range(start, len(parts)):
            layer = chain.layers[position]
            if layer.weights:
                parts[position] = ChainLayer(parts[position].layer, None)
            if isinstance(layer, keras.layers.Dense):
                break
    fresh = tuple(part.layer.name for part in parts if part.weights is None)
    names = [layer.name for layer in with_layer_weights(chain.layers)]
    carried = tuple(name for name in names if name not in fresh)
    return SurgeryResult(build_model(chain, parts, sides), carried, fresh)

"""Change the image size of a network."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from cnnkit.models.surgery.fully_convolutional import dense_head
from cnnkit.models.surgery.sequential import (
    ChainLayer,
    SurgeryResult,
    as_sequential,
    build_model,
    check_image_input,
    check_image_size,
    copy_layers,
    layers_with_weights,
    spatial_maps,
)


def resize_input(model: keras.Model, size: int | Sequence[int]) -> SurgeryResult:
    """Return the same network for images of another size.

    Convolutions keep their weights, and so does a dense head if the last map keeps its height and
    width. Otherwise the first dense layer is reinitialized, because its weights belong to other
    positions; the rest of the head keeps its weights. Use `to_fully_convolutional` to keep the
    whole head for larger images.

    Args:
        model: A chain of layers that takes (n, h, w, c).
        size: The side of a square image, or (height, width).

    Returns:
        A `SurgeryResult` with the new model.

    Raises:
        UsageError: If the layers form no chain, or `size` is too small; the error gives the least
            size.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import resize_input
        >>> resize_input(alexnet(input_shape=(64, 64, 3), classes=3), (96, 64)).reinitialized
        ('fc6',)
    """
    chain = as_sequential(model)
    check_image_input(chain)
    sides = check_image_size(size)
    found = spatial_maps(chain, sides)
    parts = copy_layers(chain.layers)
    start = dense_head(chain)
    # The layout counts, not the flattened size alone: 2 x 3 positions differ from 3 x 2.
    if start is not None and found[start] != chain.shapes[start][1:3]:
        for position in range(start, len(parts)):
            layer = chain.layers[position]
            if layer.weights:
                parts[position] = ChainLayer(parts[position].layer, None)
            if isinstance(layer, keras.layers.Dense):
                break
    reinitialized = tuple(part.layer.name for part in parts if part.weights is None)
    names = [layer.name for layer in layers_with_weights(chain.layers)]
    copied = tuple(name for name in names if name not in reinitialized)
    return SurgeryResult(build_model(chain, parts, sides), copied, reinitialized)

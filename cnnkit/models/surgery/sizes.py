"""The same network for images of another size."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from cnnkit.models.surgery.chain import Part, carry, chain_of, join, with_weights
from cnnkit.models.surgery.head import dense_head
from cnnkit.models.surgery.result import Surgery
from cnnkit.models.surgery.shapes import check_images, check_size, maps


def resize_input(model: keras.Model, size: int | Sequence[int]) -> Surgery:
    """Returns the same network, with its weights, for images of another size.

    Convolutions do not mind the size. A dense head comes along whole where the last map keeps its
    height and width. Otherwise the first dense layer is made anew by its own initializer, because
    its weights belong to positions that are no more, and the rest of the head comes along; whoever
    wants the trained head at larger sizes wants `to_fully_convolutional`.

    Args:
        model: A chain of layers that takes (n, h, w, c).
        size: The side of a square image, or (height, width).

    Returns:
        A `Surgery`: the new model, and the layers that came along or are fresh.

    Raises:
        UsageError: If the model is no chain, or the size too small; the least size is named.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import resize_input
        >>> resize_input(alexnet(input_shape=(64, 64, 3), classes=3), (96, 64)).fresh
        ('fc6',)
    """
    chain = chain_of(model)
    check_images(chain)
    sides = check_size(size)
    found = maps(chain, sides)
    parts = carry(chain.layers)
    start = dense_head(chain)
    # By layout and not by the flattened size alone: 2 x 3 positions are other ones than 3 x 2.
    if start is not None and found[start] != chain.shapes[start][1:3]:
        for position in range(start, len(parts)):
            layer = chain.layers[position]
            if layer.weights:
                parts[position] = Part(parts[position].layer, None)
            if isinstance(layer, keras.layers.Dense):
                break
    fresh = tuple(part.layer.name for part in parts if part.weights is None)
    names = [layer.name for layer in with_weights(chain.layers)]
    carried = tuple(name for name in names if name not in fresh)
    return Surgery(join(chain, parts, sides), carried, fresh)

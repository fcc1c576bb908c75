"""Where the head of a network begins, dense or convolutional."""

from __future__ import annotations

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import ReLU
from cnnkit.models.surgery.chain import Chain

# They treat every number by itself, so it is one whether they come before the Flatten or after it.
ELEMENTWISE = (keras.layers.Dropout, keras.layers.LeakyReLU, keras.layers.ReLU, ReLU)
# They treat every position by itself.
POSITIONWISE = (
    *ELEMENTWISE,
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.Softmax,
)


def dense_head(chain: Chain) -> int | None:
    """Returns the position of the Flatten between the last map and a dense layer, or None."""
    kinds = [type(layer) for layer in chain.layers]
    if keras.layers.Flatten not in kinds:
        return None
    start = kinds.index(keras.layers.Flatten)
    if len(chain.shapes[start]) != 4:
        return None
    return start if any(issubclass(kind, keras.layers.Dense) for kind in kinds[start:]) else None


def check_dense_head(chain: Chain, start: int) -> None:
    """Makes sure that the dense head of `chain` says the same thing as convolutions would.

    Raises:
        UsageError: If some layer of it would not; the layer is named.
    """
    allowed: tuple = ELEMENTWISE
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


def convolutional_head(chain: Chain, first: str | None = None) -> int | None:
    """Returns the position of the first layer of the convolutional head, or None without one.

    The head is the longest end of the chain that is 1 x 1 convolutions and layers that treat every
    position by itself; a larger convolution right before these is its first, as one over the whole
    map is.

    Args:
        chain: The network.
        first: Name of the first layer, where the rule would take one too many.

    Raises:
        UsageError: If there is no layer `first`, or the head cannot begin there.
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
            "The head cannot begin there",
            expected="a convolution of stride 1 without padding, and only 1 x 1 ones after it",
            received=f"first={first!r}",
        )
    return start


def is_window(layer: keras.layers.Layer) -> bool:
    """Tells whether `layer` is what a dense layer becomes: a plain convolution within the map."""
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.groups == 1
        and set(layer.strides) == set(layer.dilation_rate) == {1}
        and (layer.padding == "valid" or set(layer.kernel_size) == {1})
    )


def _over_channels(layer: keras.layers.Layer, rank: int) -> bool:
    return getattr(layer, "axis", -1) in (-1, rank - 1)

"""A network of two towers as one of one, and back."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import GroupedConv2D
from cnnkit.models.surgery.chain import Part, carry, chain_of, join, remake
from cnnkit.models.surgery.kernels import group_kernel, ungroup_kernel

# Krizhevsky et al. 2012, section 3.5 and Fig. 2: the layers whose kernels see one tower only.
TOWERS = ("conv2", "conv4", "conv5")


def ungroup(model: keras.Model) -> keras.Model:
    """Returns the network with its grouped convolutions as dense ones, and equal outputs.

    Each becomes a `GroupedConv2D` of one group with a block-diagonal kernel: AlexNet of two towers
    (Krizhevsky et al. 2012, section 3.2) in the shape of `alexnet(groups=1)`. Training fills in
    the zeros. A network without groups is copied.

    Args:
        model: A chain of layers.

    Raises:
        UsageError: If the model is no chain.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import ungroup
        >>> network = ungroup(alexnet(input_shape=(64, 64, 3), classes=3))
        >>> tuple(network.get_layer("conv2").kernel.shape)
        (5, 5, 96, 256)
    """
    chain = chain_of(model)
    parts = carry(chain.layers)
    for position, layer in enumerate(chain.layers):
        if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1:
            kernel, *rest = layer.get_weights()
            parts[position] = Part(
                remake(layer, _kind(layer), groups=1), [ungroup_kernel(kernel, layer.groups), *rest]
            )
    return join(chain, parts)


def group(model: keras.Model, groups: int = 2, layers: Sequence[str] = TOWERS) -> keras.Model:
    """Returns the network with dense convolutions as grouped ones, and equal outputs.

    The way back of `ungroup`: exact, and only for kernels that never mixed the groups.

    Args:
        model: A chain of layers.
        groups: Number of groups.
        layers: Names of the convolutions; by default those of AlexNet's two towers.

    Raises:
        UsageError: If the model is no chain, or a layer is unknown, no dense convolution, not
            divisible or not block-diagonal; the layer is named.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import group, ungroup
        >>> network = group(ungroup(alexnet(input_shape=(64, 64, 3), classes=3)))
        >>> tuple(network.get_layer("conv2").kernel.shape)
        (5, 5, 48, 256)
    """
    chain = chain_of(model)
    if isinstance(layers, str):
        layers = (layers,)
    known = [layer.name for layer in chain.layers]
    for name in layers:
        if name not in known:
            raise unknown_name("layer", name, known)
    parts = carry(chain.layers)
    for position in sorted({chain.index(name) for name in layers}):
        layer = chain.layers[position]
        if not isinstance(layer, keras.layers.Conv2D) or layer.groups != 1:
            raise UsageError(
                f"Layer {layer.name!r} cannot be grouped",
                expected="a convolution of one group",
                received=f"groups={layer.groups}"
                if isinstance(layer, keras.layers.Conv2D)
                else type(layer).__name__,
            )
        kernel, *rest = layer.get_weights()
        try:
            kernel = group_kernel(kernel, groups)
        except UsageError as error:
            raise UsageError(f"Layer {layer.name!r} cannot be grouped: {error}") from error
        parts[position] = Part(remake(layer, _kind(layer), groups=int(groups)), [kernel, *rest])
    return join(chain, parts)


def _kind(layer: keras.layers.Layer) -> type[keras.layers.Layer]:
    # Ours has the same arguments, and is the faster one with groups.
    return GroupedConv2D if type(layer) is keras.layers.Conv2D else type(layer)

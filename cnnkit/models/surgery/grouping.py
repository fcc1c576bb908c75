"""Convert between grouped and dense convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np
from numpy.typing import ArrayLike

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import GroupedConv2D
from cnnkit.models.surgery.sequential import (
    ChainLayer,
    as_sequential,
    build_model,
    copy_layers,
    is_positive_int,
    rebuild_layer,
)


def ungroup_kernel(kernel: ArrayLike, groups: int) -> np.ndarray:
    """Return the dense, block-diagonal kernel equivalent to a grouped kernel.

    It merges the towers of Krizhevsky et al. 2012 (section 3.2, Fig. 2): the output channels of
    group g see the input channels of group g, with zeros for the others.

    Args:
        kernel: (height, width, inputs / groups, outputs).
        groups: Number of groups.

    Returns:
        (height, width, inputs, outputs), of the same dtype.

    Raises:
        UsageError: If `kernel` has not four axes, or its outputs are not divisible by `groups`.

    Example:
        >>> import numpy as np
        >>> from cnnkit.models.surgery import ungroup_kernel
        >>> ungroup_kernel(np.full((1, 1, 1, 2), 7), 2)[0, 0]
        array([[7, 0],
               [0, 7]])
    """
    kernel = _check_kernel(kernel, groups, divisible=(3,))
    height, width, inputs, outputs = kernel.shape
    dense = np.zeros((height, width, inputs * groups, outputs), kernel.dtype)
    for rows, columns in _blocks(inputs * groups, outputs, groups):
        dense[:, :, rows, columns] = kernel[:, :, :, columns]
    return dense


def group_kernel(kernel: ArrayLike, groups: int) -> np.ndarray:
    """Return the grouped kernel equivalent to a block-diagonal dense kernel.

    The inverse of `ungroup_kernel`, exact in both directions.

    Args:
        kernel: (height, width, inputs, outputs), zero if input and output are of two groups.
        groups: Number of groups.

    Returns:
        (height, width, inputs / groups, outputs), of the same dtype.

    Raises:
        UsageError: If `kernel` has not four axes, its channels are not divisible by `groups`, or
            values off the diagonal are not zero; the error gives their number.

    Example:
        >>> import numpy as np
        >>> from cnnkit.models.surgery import group_kernel
        >>> group_kernel(np.array([[[[7, 0], [0, 7]]]]), 2)[0, 0]
        array([[7, 7]])
    """
    kernel = _check_kernel(kernel, groups, divisible=(2, 3))
    height, width, inputs, outputs = kernel.shape
    grouped = np.empty((height, width, inputs // groups, outputs), kernel.dtype)
    off = kernel.copy()
    for rows, columns in _blocks(inputs, outputs, groups):
        grouped[:, :, :, columns] = kernel[:, :, rows, columns]
        off[:, :, rows, columns] = 0
    count = np.count_nonzero(off)
    if count:
        raise UsageError(
            f"`kernel` must consist of {groups} separate groups",
            expected="zeros between inputs of one group and outputs of another",
            received=f"{count} of {kernel.size * (groups - 1) // groups} values off the diagonal"
            f" are not zero, the largest {float(np.abs(off).max()):.3g}",
            hint="Only a convolution that never mixed the groups can be grouped",
        )
    return grouped


def _check_kernel(kernel: ArrayLike, groups: int, divisible: tuple[int, ...]) -> np.ndarray:
    kernel = np.asarray(keras.ops.convert_to_numpy(kernel))
    if kernel.ndim != 4:
        raise UsageError(
            "`kernel` must have four axes",
            expected="(height, width, inputs, outputs)",
            received=kernel.shape,
        )
    if not is_positive_int(groups):
        raise UsageError(
            "`groups` must be at least 1", expected="a whole number >= 1", received=repr(groups)
        )
    if any(kernel.shape[axis] % groups for axis in divisible):
        raise UsageError(
            "`groups` must divide the channels",
            expected=f"multiples of {groups}",
            received=", ".join(
                f"{kernel.shape[axis]} {'outputs' if axis == 3 else 'inputs'}" for axis in divisible
            ),
        )
    return kernel


def _blocks(inputs: int, outputs: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """Yield the slices of input and output channels of each group."""
    rows, columns = inputs // groups, outputs // groups
    for g in range(groups):
        yield slice(g * rows, (g + 1) * rows), slice(g * columns, (g + 1) * columns)


# Krizhevsky et al. 2012, section 3.5 and Fig. 2: layers whose filters see one tower only.
TOWERS = ("conv2", "conv4", "conv5")


def to_dense_convolutions(model: keras.Model) -> keras.Model:
    """Return an equivalent network with dense instead of grouped convolutions.

    Each grouped convolution becomes a `GroupedConv2D` of one group with a block-diagonal kernel.
    AlexNet with two towers (Krizhevsky et al. 2012, section 3.2) gets the shapes of
    `alexnet(groups=1)`. Training can change the zeros. A network without groups is copied.

    Args:
        model: A chain of layers.

    Raises:
        UsageError: If the layers form no chain.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import to_dense_convolutions
        >>> network = to_dense_convolutions(alexnet(input_shape=(64, 64, 3), classes=3))
        >>> tuple(network.get_layer("conv2").kernel.shape)
        (5, 5, 96, 256)
    """
    chain = as_sequential(model)
    parts = copy_layers(chain.layers)
    for position, layer in enumerate(chain.layers):
        if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1:
            kernel, *rest = layer.get_weights()
            parts[position] = ChainLayer(
                rebuild_layer(layer, _kind(layer), groups=1),
                [ungroup_kernel(kernel, layer.groups), *rest],
            )
    return build_model(chain, parts)


def to_grouped_convolutions(
    model: keras.Model, groups: int = 2, layers: Sequence[str] = TOWERS
) -> keras.Model:
    """Return an equivalent network with grouped instead of dense convolutions.

    The inverse of `to_dense_convolutions`, for kernels that are zero between the groups.

    Args:
        model: A chain of layers.
        groups: Number of groups.
        layers: Names of the convolutions; the default are the grouped ones of AlexNet.

    Raises:
        UsageError: If the layers form no chain, or a layer is unknown, not a dense convolution, not
            divisible or not block-diagonal. The error names the layer.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.models.surgery import to_grouped_convolutions, to_dense_convolutions
        >>> dense = to_dense_convolutions(alexnet(input_shape=(64, 64, 3), classes=3))
        >>> network = to_grouped_convolutions(dense)
        >>> tuple(network.get_layer("conv2").kernel.shape)
        (5, 5, 48, 256)
    """
    chain = as_sequential(model)
    if isinstance(layers, str):
        layers = (layers,)
    known = [layer.name for layer in chain.layers]
    for name in layers:
        if name not in known:
            raise unknown_name("layer", name, known)
    parts = copy_layers(chain.layers)
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
        parts[position] = ChainLayer(
            rebuild_layer(layer, _kind(layer), groups=int(groups)), [kernel, *rest]
        )
    return build_model(chain, parts)


def _kind(layer: keras.layers.Layer) -> type[keras.layers.Layer]:
    # It has the arguments of Conv2D and is faster with groups.
    return GroupedConv2D if type(layer) is keras.layers.Conv2D else type(layer)

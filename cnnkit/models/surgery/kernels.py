"""Kernels of a grouped convolution and of the dense one that does the same."""

from __future__ import annotations

import keras
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.surgery.shapes import is_count


def ungroup_kernel(kernel, groups: int) -> np.ndarray:
    """Returns the dense kernel that does what a grouped one does: block-diagonal, zeros elsewhere.

    The towers of Krizhevsky et al. 2012 (section 3.2, Fig. 2) as one: output channels of group g
    take the input channels of group g, and nothing from the others.

    Args:
        kernel: (height, width, inputs / groups, outputs).
        groups: Number of groups.

    Returns:
        (height, width, inputs, outputs), of the same dtype.

    Raises:
        UsageError: If the shape is no kernel's, or the outputs are not divisible.

    Example:
        >>> import numpy as np
        >>> from cnnkit.models.surgery import ungroup_kernel
        >>> ungroup_kernel(np.full((1, 1, 1, 2), 7), 2)[0, 0]
        array([[7, 0],
               [0, 7]])
    """
    kernel = _checked(kernel, groups, divisible=(3,))
    height, width, inputs, outputs = kernel.shape
    dense = np.zeros((height, width, inputs * groups, outputs), kernel.dtype)
    for rows, columns in _blocks(inputs * groups, outputs, groups):
        dense[:, :, rows, columns] = kernel[:, :, :, columns]
    return dense


def group_kernel(kernel, groups: int) -> np.ndarray:
    """Returns the grouped kernel that does what a block-diagonal dense one does.

    The way back of `ungroup_kernel`, exact in both directions.

    Args:
        kernel: (height, width, inputs, outputs), zero wherever input and output are of two groups.
        groups: Number of groups.

    Returns:
        (height, width, inputs / groups, outputs), of the same dtype.

    Raises:
        UsageError: If the shape is no kernel's, the channels are not divisible, or something is off
            the diagonal; how much is said.

    Example:
        >>> import numpy as np
        >>> from cnnkit.models.surgery import group_kernel
        >>> group_kernel(np.array([[[[7, 0], [0, 7]]]]), 2)[0, 0]
        array([[7, 7]])
    """
    kernel = _checked(kernel, groups, divisible=(2, 3))
    height, width, inputs, outputs = kernel.shape
    grouped = np.empty((height, width, inputs // groups, outputs), kernel.dtype)
    off = kernel.copy()
    for rows, columns in _blocks(inputs, outputs, groups):
        grouped[:, :, :, columns] = kernel[:, :, rows, columns]
        off[:, :, rows, columns] = 0
    count = np.count_nonzero(off)
    if count:
        raise UsageError(
            f"The kernel is not {groups} separate groups",
            expected="zeros between inputs of one group and outputs of another",
            received=f"{count} of {kernel.size * (groups - 1) // groups} values off the diagonal"
            f" are not zero, the largest {float(np.abs(off).max()):.3g}",
            hint="Only a convolution that never mixed the groups can be grouped",
        )
    return grouped


def _checked(kernel, groups: int, divisible: tuple[int, ...]) -> np.ndarray:
    kernel = np.asarray(keras.ops.convert_to_numpy(kernel))
    if kernel.ndim != 4:
        raise UsageError(
            "A kernel has four axes",
            expected="(height, width, inputs, outputs)",
            received=kernel.shape,
        )
    if not is_count(groups):
        raise UsageError(
            "A convolution has groups", expected="a whole number >= 1", received=repr(groups)
        )
    if any(kernel.shape[axis] % groups for axis in divisible):
        raise UsageError(
            "The channels do not divide into the groups",
            expected=f"multiples of {groups}",
            received=", ".join(
                f"{kernel.shape[axis]} {'outputs' if axis == 3 else 'inputs'}" for axis in divisible
            ),
        )
    return kernel


def _blocks(inputs: int, outputs: int, groups: int):
    """Yields the slices of input and output channels of each group."""
    rows, columns = inputs // groups, outputs // groups
    for g in range(groups):
        yield slice(g * rows, (g + 1) * rows), slice(g * columns, (g + 1) * columns)

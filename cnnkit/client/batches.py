"""Large batches cut into requests, and their answers put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.client.metadata import Signature
from cnnkit.errors import UsageError

Arrays = dict[str, npt.NDArray[Any]]

# Rows of a request where the caller says nothing: past this a server gains little.
USUAL_ROWS = 64
# Bytes of a request at most where several can be made; no message of protobuf's has 2 GiB.
LARGEST_REQUEST = 2**28
# Inputs of a signature, at most, that need no thought where each takes its part of that.
FEW_INPUTS = 16


def cut(inputs: Arrays, signature: Signature, rows: int | None) -> list[Arrays]:
    """Cuts a signature's inputs into requests of at most `rows` rows.

    Args:
        inputs: Arrays by name, as the signature takes them.
        signature: Only where the first size of every input and output is open can rows be parted.
        rows: Rows of a request at most; None is 64, and fewer where rows are very large.

    Returns:
        The parts in their order; one where nothing is to be cut.

    Raises:
        UsageError: `rows` is below 1, or the signature's rows belong together.

    Example:
        >>> from cnnkit.client.metadata import TensorSpec
        >>> spec = {"x": TensorSpec("float32", (None,))}
        >>> parts = cut({"x": np.arange(5)}, Signature(spec, spec), 2)
        >>> [part["x"].tolist() for part in parts]
        [[0, 1], [2, 3], [4]]
    """
    if rows is not None and rows < 1:
        raise UsageError(
            "A request has one row at least", expected="batch_size >= 1", received=rows
        )
    if rows is None and len(inputs) <= FEW_INPUTS and all(map(_is_small, inputs.values())):
        return [inputs]
    count = _rows(inputs, signature)
    if count is None:
        if rows is not None:
            raise UsageError(
                "This signature's inputs cannot be sent in parts",
                expected="a free first size of all inputs and outputs, and as many rows in each",
                hint="Leave batch_size out",
            )
        return [inputs]
    largest = LARGEST_REQUEST * count // max(sum(map(_bytes, inputs.values())), 1)
    rows = min(rows or USUAL_ROWS, max(largest, 1))
    return [
        {name: array[start : start + rows] for name, array in inputs.items()}
        for start in range(0, count, rows)
    ]


def join(parts: Sequence[Arrays]) -> Arrays:
    """Puts the answers to the parts of a batch together again.

    Example:
        >>> join([{"y": np.zeros((2, 3))}, {"y": np.ones((1, 3))}])["y"].shape
        (3, 3)
    """
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def is_light(size: int) -> bool:
    """Returns whether one request takes an input of so many bytes, if it takes its rows.

    Example:
        >>> is_light(2**24), is_light(2**24 + 1)
        (True, False)
    """
    return size * FEW_INPUTS <= LARGEST_REQUEST


def _is_small(array: npt.NDArray[Any]) -> bool:
    """Returns whether one request takes an array, whatever the signature says of its rows."""
    return array.ndim > 0 and len(array) <= USUAL_ROWS and is_light(_bytes(array))


def _rows(inputs: Arrays, signature: Signature) -> int | None:
    """Returns how many rows there are to be parted; None where they cannot be."""
    specs = [*signature.inputs.values(), *signature.outputs.values()]
    free = all(spec.shape and spec.shape[0] is None for spec in specs)
    counts = {array.shape[0] for array in inputs.values() if array.ndim}
    return counts.pop() if free and len(counts) == 1 else None


def _bytes(array: npt.NDArray[Any]) -> int:
    if array.dtype.kind != "O":
        return array.nbytes
    return sum(len(value) for value in array.reshape(-1).tolist())

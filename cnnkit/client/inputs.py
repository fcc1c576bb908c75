"""Arrays made into what a signature takes, or refused before anything is sent.

A model server is a poor place to find out about a wrong array: an empty batch can wait for ever in
its batching queue, and a wrong rank can end the whole server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.client.metadata import Signature, TensorSpec
from cnnkit.errors import UsageError, unknown_name
from cnnkit.wire.dtypes import TensorError, wire_type_of
from cnnkit.wire.tensors import as_array


def bind_inputs(
    inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike], signature: Signature
) -> dict[str, npt.NDArray[Any]]:
    """Returns a signature's inputs by name, of its types and shapes.

    Numbers are cast where that loses nothing a network could notice (float64, uint8 or int64 to
    float32), and a batch axis is put in front of an array that lacks exactly that one.

    Args:
        inputs: An array for a signature with one input, else arrays by name.
        signature: What the model takes.

    Returns:
        Arrays by name, ready to be sent.

    Raises:
        UsageError: A name, element type or shape does not fit, or a batch is empty.

    Example:
        >>> images = TensorSpec("float32", (None, 2))
        >>> bind_inputs([1, 2], Signature({"images": images}, {}))["images"].shape
        (1, 2)
    """
    if isinstance(inputs, Mapping):
        named = dict(inputs)
    elif len(signature.inputs) == 1:
        named = {next(iter(signature.inputs)): inputs}
    else:
        raise UsageError(
            "A signature with several inputs needs a name for each array",
            expected=f"a dict with {', '.join(signature.inputs)}",
            received="one array",
        )
    missing = [name for name in signature.inputs if name not in named]
    for name in named:
        if name not in signature.inputs:
            raise unknown_name("input", name, signature.inputs)
    if missing:
        raise UsageError(
            "An input of the signature is missing",
            expected=", ".join(signature.inputs),
            received=", ".join(named) or "none",
        )
    return {
        name: coerce_input(values, signature.inputs[name], name) for name, values in named.items()
    }


def coerce_input(values: npt.ArrayLike, spec: TensorSpec, name: str) -> npt.NDArray[Any]:
    """Returns one array as its input takes it.

    Args:
        values: Anything `numpy.asarray` takes.
        spec: The input's type and shape.
        name: The input's name, for the texts of errors.

    Returns:
        The array, cast and with its batch axis.

    Raises:
        UsageError: It does not fit.

    Example:
        >>> coerce_input(np.zeros((2, 3)), TensorSpec("float32", (None, 3)), "x").dtype
        dtype('float32')
    """
    try:
        array = as_array(values)
        kind = wire_type_of(array.dtype).name
    except TensorError as error:
        raise UsageError(
            f"Input {name!r} is not an array that can be sent",
            expected=spec,
            received=error.received,
        ) from error
    return _shaped(_cast(array, kind, spec, name), spec, name)


def _cast(array: npt.NDArray[Any], kind: str, spec: TensorSpec, name: str) -> npt.NDArray[Any]:
    if kind == spec.dtype:
        return array
    mismatch = UsageError(
        f"Input {name!r} has the wrong element type", expected=spec.dtype, received=kind
    )
    # Strings have no number to be cast to, and NumPy knows bfloat16 only where ml_dtypes is.
    if "string" in (kind, spec.dtype) or "bfloat16" in (kind, spec.dtype):
        raise mismatch
    try:
        wanted = np.dtype(spec.dtype)
    except TypeError as error:
        raise mismatch from error
    if wanted.kind in "iub":
        return _whole(array, wanted, mismatch)
    if array.dtype.kind == "c" and wanted.kind == "f":
        raise mismatch
    try:
        with np.errstate(over="raise"):
            return array.astype(wanted)
    except FloatingPointError as error:
        raise UsageError(
            f"Input {name!r} has values that {spec.dtype} cannot hold",
            received=f"up to {np.abs(array).max():g}",
        ) from error


def _whole(
    array: npt.NDArray[Any], wanted: np.dtype[Any], mismatch: UsageError
) -> npt.NDArray[Any]:
    """Casts whole numbers to another type of whole numbers, if each keeps its value."""
    if array.dtype.kind not in "iub":
        raise mismatch
    cast = array.astype(wanted)
    if not np.array_equal(cast, array):
        raise mismatch
    return cast


def _shaped(array: npt.NDArray[Any], spec: TensorSpec, name: str) -> npt.NDArray[Any]:
    if spec.shape is not None:
        if array.ndim == len(spec.shape) - 1 and spec.shape[0] in (None, 1):
            array = array[np.newaxis]
        fits = array.ndim == len(spec.shape) and all(
            wanted is None or size == wanted
            for size, wanted in zip(array.shape, spec.shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"Input {name!r} has the wrong shape", expected=spec, received=list(array.shape)
            )
    if array.size == 0:
        raise UsageError(
            f"Input {name!r} is empty",
            expected="a batch of 1 or more",
            received=list(array.shape),
        )
    return array


Arrays = dict[str, npt.NDArray[Any]]

# Rows of a request where the caller says nothing: past this a server gains little.
DEFAULT_BATCH_ROWS = 64
# Bytes of a request at most where several can be made; no message of protobuf's has 2 GiB.
LARGEST_REQUEST = 2**28
# Inputs of a signature, at most, that need no thought where each takes its part of that.
FEW_INPUTS = 16


def split_batch(inputs: Arrays, signature: Signature, rows: int | None) -> list[Arrays]:
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
        >>> parts = split_batch({"x": np.arange(5)}, Signature(spec, spec), 2)
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
    rows = min(rows or DEFAULT_BATCH_ROWS, max(largest, 1))
    return [
        {name: array[start : start + rows] for name, array in inputs.items()}
        for start in range(0, count, rows)
    ]


def concat_batches(parts: Sequence[Arrays]) -> Arrays:
    """Puts the answers to the parts of a batch together again.

    Example:
        >>> concat_batches([{"y": np.zeros((2, 3))}, {"y": np.ones((1, 3))}])["y"].shape
        (3, 3)
    """
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fits_one_request(size: int) -> bool:
    """Returns whether one request takes an input of so many bytes, if it takes its rows.

    Example:
        >>> fits_one_request(2**24), fits_one_request(2**24 + 1)
        (True, False)
    """
    return size * FEW_INPUTS <= LARGEST_REQUEST


def _is_small(array: npt.NDArray[Any]) -> bool:
    """Returns whether one request takes an array, whatever the signature says of its rows."""
    return array.ndim > 0 and len(array) <= DEFAULT_BATCH_ROWS and fits_one_request(_bytes(array))


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

"""Validate and convert the inputs of a signature, split large batches, join the outputs.

Inputs are validated before they are sent, because TensorFlow Serving 2.21 handles some invalid ones
badly: an empty batch can wait forever in its batching queue, and a wrong rank can abort the server.
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
    """Return a signature's inputs by name, with its dtypes and shapes.

    Numbers are cast to floating-point inputs (float64, uint8 or int64 to float32). They are cast to
    integer inputs only if every value is kept. A missing batch axis is added.

    Args:
        inputs: An array for a signature with one input, or arrays by input name.
        signature: The signature.

    Returns:
        Arrays by input name, ready to be sent.

    Raises:
        UsageError: A name, dtype or shape does not match the signature, a batch is empty, or an
            image (an input with four axes) holds NaN or infinity.

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
            "`inputs` must be a dict for a signature with several inputs",
            expected=f"a dict with {', '.join(signature.inputs)}",
            received="one array",
        )
    missing = [name for name in signature.inputs if name not in named]
    for name in named:
        if name not in signature.inputs:
            raise unknown_name("input", name, signature.inputs)
    if missing:
        raise UsageError(
            "`inputs` must hold every input of the signature",
            expected=", ".join(signature.inputs),
            received=", ".join(named) or "none",
        )
    bound = {
        name: coerce_input(values, signature.inputs[name], name) for name, values in named.items()
    }
    check_finite(bound)
    return bound


def check_finite(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise a `UsageError` for an image that holds NaN or infinity.

    A network answers it with a plausible number: a ReLU turns NaN into 0.

    Args:
        arrays: Arrays by input name; those with four axes hold images.

    Example:
        >>> check_finite({"images": np.zeros((1, 2, 2, 3), np.float32)})
    """
    for name, array in arrays.items():
        # NumPy's minimum and maximum keep NaN, and need no array of the same size.
        if array.ndim != 4 or array.dtype.kind != "f" or not array.size:
            continue
        if np.isfinite(array.min()) and np.isfinite(array.max()):
            continue
        row = int(np.isfinite(array).reshape(len(array), -1).all(axis=1).argmin())
        raise UsageError(
            f"Input {name!r} must hold finite numbers",
            received=f"{array[row][~np.isfinite(array[row])].flat[0]:g} in {name}[{row}]",
        )


def coerce_input(values: npt.ArrayLike, spec: TensorSpec, name: str) -> npt.NDArray[Any]:
    """Convert one input to its dtype and shape.

    Args:
        values: Anything `numpy.asarray` accepts.
        spec: Dtype and shape of the input.
        name: Name of the input, for error messages.

    Returns:
        The array, cast and with a batch axis.

    Raises:
        UsageError: `values` cannot be converted without loss, have another shape, or are empty.

    Example:
        >>> coerce_input(np.zeros((2, 3)), TensorSpec("float32", (None, 3)), "x").dtype
        dtype('float32')
    """
    try:
        array = as_array(values)
        kind = wire_type_of(array.dtype).name
    except TensorError as error:
        raise UsageError(
            f"Input {name!r} must be an array of a supported dtype",
            expected=spec,
            received=error.received,
        ) from error
    return _with_batch_axis(_cast(array, kind, spec, name), spec, name)


def _cast(array: npt.NDArray[Any], kind: str, spec: TensorSpec, name: str) -> npt.NDArray[Any]:
    """Cast an array whose element type is called `kind`, or raise a `UsageError`."""
    if kind == spec.dtype:
        return array
    mismatch = UsageError(f"Input {name!r} has the wrong dtype", expected=spec.dtype, received=kind)
    # Strings are not numbers, and NumPy knows bfloat16 only if ml_dtypes is installed.
    if "string" in (kind, spec.dtype) or "bfloat16" in (kind, spec.dtype):
        raise mismatch
    try:
        wanted = np.dtype(spec.dtype)
    except TypeError as error:
        raise mismatch from error
    if wanted.kind in "iub":
        return _cast_to_integers(array, wanted, mismatch)
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


def _cast_to_integers(
    array: npt.NDArray[Any], wanted: np.dtype[Any], mismatch: UsageError
) -> npt.NDArray[Any]:
    """Cast integers or bools to another such type, if every value is kept."""
    if array.dtype.kind not in "iub":
        raise mismatch
    cast = array.astype(wanted)
    if not np.array_equal(cast, array):
        raise mismatch
    return cast


def _with_batch_axis(array: npt.NDArray[Any], spec: TensorSpec, name: str) -> npt.NDArray[Any]:
    """Add a missing batch axis, and check the shape."""
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

# Rows of a request by default: as many as serving/batching.config permits. Larger batches hardly
# increase a server's throughput.
DEFAULT_BATCH_ROWS = 32
# Bytes of a request if several can be made, at most. Protobuf's limit of a message is 2 GiB.
MAX_REQUEST_BYTES = 2**28
# Up to this number of inputs, each may use an equal share of MAX_REQUEST_BYTES.
_MAX_SMALL_INPUTS = 16


def split_batch(inputs: Arrays, signature: Signature, rows: int | None) -> list[Arrays]:
    """Split a signature's inputs into requests of at most `rows` rows.

    Args:
        inputs: Arrays by input name, as returned by `bind_inputs`.
        signature: The signature. Rows can be split only if the first size of every input and output
            is free.
        rows: Maximum number of rows of a request. None stands for 32, and for fewer if the rows are
            very large.

    Returns:
        The parts in order; a single one if the batch is not split.

    Raises:
        UsageError: `rows` is below 1, or the signature's rows cannot be split.

    Example:
        >>> from cnnkit.client.metadata import TensorSpec
        >>> spec = {"x": TensorSpec("float32", (None,))}
        >>> parts = split_batch({"x": np.arange(5)}, Signature(spec, spec), 2)
        >>> [part["x"].tolist() for part in parts]
        [[0, 1], [2, 3], [4]]
    """
    if rows is not None and rows < 1:
        raise UsageError("`batch_size` must be positive", expected="batch_size >= 1", received=rows)
    if rows is None and len(inputs) <= _MAX_SMALL_INPUTS and all(map(_is_small, inputs.values())):
        return [inputs]
    count = count_rows(inputs, signature)
    if count is None:
        if rows is not None:
            raise UsageError(
                "`batch_size` must not be given for a signature whose rows cannot be split",
                expected="a free first size of all inputs and outputs, and as many rows in each",
                hint="Leave batch_size out",
            )
        return [inputs]
    largest = MAX_REQUEST_BYTES * count // max(sum(map(_count_bytes, inputs.values())), 1)
    rows = min(rows or DEFAULT_BATCH_ROWS, max(largest, 1))
    return [
        {name: array[start : start + rows] for name, array in inputs.items()}
        for start in range(0, count, rows)
    ]


def concat_batches(parts: Sequence[Arrays]) -> Arrays:
    """Concatenate the outputs of the parts of a batch.

    Example:
        >>> concat_batches([{"y": np.zeros((2, 3))}, {"y": np.ones((1, 3))}])["y"].shape
        (3, 3)
    """
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fits_one_request(size: int) -> bool:
    """Return True if an input of `size` bytes need not be split because of its size.

    Example:
        >>> fits_one_request(2**24), fits_one_request(2**24 + 1)
        (True, False)
    """
    return size * _MAX_SMALL_INPUTS <= MAX_REQUEST_BYTES


def _is_small(array: npt.NDArray[Any]) -> bool:
    """Return True if an input need not be split, whatever its signature."""
    return (
        array.ndim > 0
        and len(array) <= DEFAULT_BATCH_ROWS
        and fits_one_request(_count_bytes(array))
    )


def count_rows(inputs: Arrays, signature: Signature) -> int | None:
    """Return the number of rows of a batch, or None if it cannot be split."""
    specs = [*signature.inputs.values(), *signature.outputs.values()]
    free = all(spec.shape and spec.shape[0] is None for spec in specs)
    counts = {array.shape[0] for array in inputs.values() if array.ndim}
    return counts.pop() if free and len(counts) == 1 else None


def _count_bytes(array: npt.NDArray[Any]) -> int:
    """Return the size of an array; of strings, the sum of their lengths."""
    if array.dtype.kind != "O":
        return array.nbytes
    return sum(len(value) for value in array.reshape(-1).tolist())

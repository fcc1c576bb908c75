"""Arrays of NumPy in a pickle, made from their bytes without a call of what the pickle names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit._untrusted.limits import MAX_ARRAY_AXES, MAX_FREE_SIDE
from cnnkit._untrusted.pickles import Made
from cnnkit.errors import DataError

# Types of the numbers of an array: kind and bytes, as NumPy writes them in a pickle.
NUMERIC = frozenset({"b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)),
                     "f2", "f4", "f8"})  # fmt: skip
DTYPE, ARRAY, ENCODE = "numpy.dtype", "numpy.ndarray", "_codecs.encode"
RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")


def is_array(value: Any) -> bool:
    """Return True if an object of `read_pickle` is an array of NumPy."""
    return isinstance(value, Made) and value.path in RECONSTRUCT


def decode_array(value: Made, origin: str | Path) -> np.ndarray:
    """Return an array of NumPy from its description in a pickle.

    The numbers are those of the pickle's own bytes; nothing is called.

    Args:
        value: An object for which `is_array` is True.
        origin: The file, for messages.

    Raises:
        DataError: If it is not an array of numbers, or its shape does not fit the bytes.
    """
    with damage_as_error(origin):
        _version, shape, dtype, is_fortran, data = value.state
        code = _dtype_code(dtype)
        if code is None:
            raise DataError(
                f"{origin} has an array of other things than numbers",
                received=_dtype_words(dtype),
            )
        if not isinstance(shape, tuple) or len(shape) > MAX_ARRAY_AXES:
            raise DataError(f"{origin} has an array of an absurd shape")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise DataError(f"{origin} has an array of an absurd shape")
        content = _bytes_of(data, origin)
        numbers = np.dtype(code)
        if len(content) != math.prod(shape) * numbers.itemsize or max(shape, default=0) > max(
            len(content), MAX_FREE_SIDE
        ):
            raise DataError(
                f"{origin} has an array whose shape does not fit its bytes",
                expected=f"{shorten(str(shape))} of {numbers}",
                received=f"{len(content):,} bytes",
            )
        array = np.frombuffer(content, numbers)
        return array.reshape(shape, order="F" if is_fortran else "C")


def _dtype_code(dtype: Any) -> str | None:
    """Return the type of an array's numbers for NumPy, or None for another type."""
    if not (isinstance(dtype, Made) and dtype.path == DTYPE and dtype.arguments):
        return None
    code = dtype.arguments[0]
    if not isinstance(code, str) or code not in NUMERIC:
        return None
    # (version, byte order, subtype, names, fields, size, alignment, flags)
    state = dtype.state if isinstance(dtype.state, tuple) else (3, "|", None)
    order = state[1]
    if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
        return None
    return f"{'=' if order == '|' else order}{code}"


def _dtype_words(dtype: Any) -> str:
    if isinstance(dtype, Made) and dtype.path == DTYPE and dtype.arguments:
        code = dtype.arguments[0]
        return f"the type {code[:80]!r}" if isinstance(code, str) else "an unknown type"
    return "an unknown type"


def _bytes_of(data: Any, origin: str | Path) -> bytes:
    """Return the bytes of an array; Python 2, and protocol 2, write them as text."""
    if isinstance(data, Made) and data.path == ENCODE and len(data.arguments) == 2:
        data, encoding = data.arguments
        if encoding != "latin1":
            raise DataError(f"{origin} has an array in another encoding")
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise DataError(f"{origin} has an array without bytes")
    return bytes(data)

"""The element types a tensor can have on the wire, and where each keeps its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnkit.errors import CnnkitError
from cnnkit.wire import cnnkit_serving_pb2 as pb


class TensorError(CnnkitError, ValueError):
    """A tensor that cannot be put on the wire, or bytes that are not what they claim to be."""


@dataclass(frozen=True)
class WireType:
    """How one element type travels.

    Attributes:
        number: Its number in the `DataType` enumeration.
        name: Its name for readers, NumPy's where there is one: "float32", "string", "bfloat16".
        field: The list of a `TensorProto` that holds its values.
        field_number: The number of that field.
        listed: The type of that list's values.
        stored: The little-endian type of an element inside `tensor_content`; None for strings.
    """

    number: pb.DataType
    name: str
    field: str
    field_number: int
    listed: np.dtype[Any]
    stored: np.dtype[Any] | None


def _wire_type(
    number: pb.DataType, name: str, field: str, listed: str, stored: str | None
) -> WireType:
    return WireType(
        number,
        name,
        field,
        pb.TensorProto.DESCRIPTOR.fields_by_name[field].number,
        np.dtype(listed),
        None if stored is None else np.dtype(stored),
    )


STRING = _wire_type(pb.DT_STRING, "string", "string_val", "O", None)
BFLOAT16 = _wire_type(pb.DT_BFLOAT16, "bfloat16", "half_val", "<i4", "<u2")
WIRE_TYPES = (
    _wire_type(pb.DT_FLOAT, "float32", "float_val", "<f4", "<f4"),
    _wire_type(pb.DT_DOUBLE, "float64", "double_val", "<f8", "<f8"),
    _wire_type(pb.DT_INT32, "int32", "int_val", "<i4", "<i4"),
    _wire_type(pb.DT_UINT8, "uint8", "int_val", "<i4", "u1"),
    _wire_type(pb.DT_INT16, "int16", "int_val", "<i4", "<i2"),
    _wire_type(pb.DT_INT8, "int8", "int_val", "<i4", "i1"),
    STRING,
    _wire_type(pb.DT_COMPLEX64, "complex64", "scomplex_val", "<f4", "<c8"),
    _wire_type(pb.DT_INT64, "int64", "int64_val", "<i8", "<i8"),
    _wire_type(pb.DT_BOOL, "bool", "bool_val", "?", "?"),
    BFLOAT16,
    _wire_type(pb.DT_UINT16, "uint16", "int_val", "<i4", "<u2"),
    _wire_type(pb.DT_COMPLEX128, "complex128", "dcomplex_val", "<f8", "<c16"),
    _wire_type(pb.DT_HALF, "float16", "half_val", "<i4", "<f2"),
    _wire_type(pb.DT_UINT32, "uint32", "uint32_val", "<u4", "<u4"),
    _wire_type(pb.DT_UINT64, "uint64", "uint64_val", "<u8", "<u8"),
)
_BY_NUMBER: dict[int, WireType] = {kind.number: kind for kind in WIRE_TYPES}
_BY_NAME = {kind.name: kind for kind in WIRE_TYPES}
# NumPy makes a type's name anew each time, which takes longer than all else that is looked at.
_BY_DTYPE = {np.dtype(kind.name): kind for kind in WIRE_TYPES if kind not in (STRING, BFLOAT16)}


def wire_type(number: int) -> WireType:
    """Returns the element type of a `DataType` number.

    Raises:
        TensorError: The number is none of the types that travel between cnnkit and a server.

    Example:
        >>> wire_type(1).name
        'float32'
    """
    if number not in _BY_NUMBER:
        raise TensorError(
            "A tensor of this element type cannot be read",
            expected=f"one of {', '.join(_BY_NAME)}",
            received=f"data type {number}",
        )
    return _BY_NUMBER[number]


def type_name(number: int) -> str:
    """Returns a type's name for readers; "data type 20" for one that is not ours.

    Example:
        >>> type_name(7), type_name(20)
        ('string', 'data type 20')
    """
    return _BY_NUMBER[number].name if number in _BY_NUMBER else f"data type {number}"


def wire_type_of(dtype: np.dtype[Any]) -> WireType:
    """Returns how elements of a NumPy type travel; text and Python objects travel as strings.

    Raises:
        TensorError: The type has no counterpart (dates, records).

    Example:
        >>> wire_type_of(np.dtype("S3")).name
        'string'
    """
    if dtype in _BY_DTYPE:
        return _BY_DTYPE[dtype]
    if dtype.kind in "SUO":
        return STRING
    # ml_dtypes' bfloat16 calls itself by this name; asking for the name spares its import.
    if dtype.name not in _BY_NAME:
        raise TensorError(
            "An array of this type cannot be sent",
            expected=f"one of {', '.join(_BY_NAME)}",
            received=str(dtype),
        )
    return _BY_NAME[dtype.name]

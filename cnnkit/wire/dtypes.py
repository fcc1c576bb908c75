"""Element types of tensors on the wire, and the fields that hold their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnkit.errors import CnnkitError
from cnnkit.wire import cnnkit_serving_pb2 as pb


class TensorError(CnnkitError, ValueError):
    """An array that cannot be sent, or a tensor message that is inconsistent."""


@dataclass(frozen=True)
class WireType:
    """The encodings of one element type.

    Attributes:
        number: Number in the `DataType` enumeration.
        name: Name for readers, NumPy's if there is one: "float32", "string", "bfloat16".
        field: Name of the list in a `TensorProto` that holds the values.
        field_number: Number of that field.
        listed: NumPy dtype of the values in that list.
        stored: Little-endian dtype of an element in `tensor_content`; None for strings.
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
# Looked up by dtype: NumPy computes `dtype.name` anew at each access.
_BY_DTYPE = {np.dtype(kind.name): kind for kind in WIRE_TYPES if kind not in (STRING, BFLOAT16)}


def wire_type(number: int) -> WireType:
    """Return the element type with a `DataType` number.

    Raises:
        TensorError: The element type is not supported.

    Example:
        >>> wire_type(1).name
        'float32'
    """
    if number not in _BY_NUMBER:
        raise TensorError(
            "`dtype` of a tensor must be a supported data type",
            expected=f"one of {', '.join(_BY_NAME)}",
            received=f"data type {number}",
        )
    return _BY_NUMBER[number]


def type_name(number: int) -> str:
    """Return the name of a data type for readers; "data type 20" for an unsupported one.

    Example:
        >>> type_name(7), type_name(20)
        ('string', 'data type 20')
    """
    return _BY_NUMBER[number].name if number in _BY_NUMBER else f"data type {number}"


def wire_type_of(dtype: np.dtype[Any]) -> WireType:
    """Return the element type for a NumPy dtype. Text and objects are sent as strings.

    Raises:
        TensorError: The dtype has no counterpart (dates, records).

    Example:
        >>> wire_type_of(np.dtype("S3")).name
        'string'
    """
    if dtype in _BY_DTYPE:
        return _BY_DTYPE[dtype]
    if dtype.kind in "SUO":
        return STRING
    # The name is compared instead of ml_dtypes.bfloat16, to avoid importing that package.
    if dtype.name not in _BY_NAME:
        raise TensorError(
            "The dtype of an `array` to send must be supported",
            expected=f"one of {', '.join(_BY_NAME)}",
            received=str(dtype),
        )
    return _BY_NAME[dtype.name]

"""NumPy arrays to and from TensorProto messages, in every encoding in use."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import (
    BFLOAT16,
    STRING,
    WIRE_TYPES,
    TensorError,
    WireType,
    wire_type,
    wire_type_of,
)
from cnnkit.wire.protobuf import UnreadableError, encode_tag, find_field

# No message of protobuf's is larger. A list that repeats its last value can claim more than it
# carries: without a limit, 30 bytes would make the reader allocate any amount of memory.
LARGEST_TENSOR = 2**31

# The number of the field for raw bytes, and those of all fields that can be read in one piece, with
# the bytes of an element in it.
CONTENT = 4
IN_ONE_PIECE = {CONTENT: 1} | {
    kind.field_number: kind.listed.itemsize for kind in WIRE_TYPES if kind.listed.kind == "f"
}
# Bytes up to which something is kept for the next message.
_SHORT = 256


def to_tensor_proto(array: npt.ArrayLike) -> pb.TensorProto:
    """Puts an array into a message the short way: raw bytes, or `string_val` for strings.

    Args:
        array: Anything `numpy.asarray` takes. Elements that are text are sent as UTF-8. Binary
            strings belong into a list or an object array: NumPy's `S` type drops trailing zeros.

    Returns:
        The message, with the array's shape and element type.

    Raises:
        TensorError: The element type cannot travel.

    Example:
        >>> to_tensor_proto(np.zeros((2, 3), np.float32)).tensor_content == bytes(24)
        True
    """
    values = as_array(array)
    kind = wire_type_of(values.dtype)
    proto = pb.TensorProto.FromString(_described(values.shape, kind.number))
    if kind.stored is None:
        proto.string_val.extend(_strings(values))
    else:
        proto.tensor_content = _stored(values, kind).tobytes()
    return proto


def encode_tensor(array: npt.ArrayLike) -> list[bytes | memoryview]:
    """Returns the bytes of what `encode` makes, in pieces that share the array's memory.

    Args:
        array: As for `encode`.

    Raises:
        TensorError: The element type cannot travel.

    Example:
        >>> array = np.zeros((2, 3), np.float32)
        >>> b"".join(encode_tensor(array)) == to_tensor_proto(array).SerializeToString()
        True
    """
    values = as_array(array)
    kind = wire_type_of(values.dtype)
    pieces: list[bytes | memoryview] = [_described(values.shape, kind.number)]
    if kind.stored is None:
        for string in _strings(values):
            pieces += (encode_tag(kind.field_number, len(string)), string)
    elif values.nbytes:
        content = np.ascontiguousarray(_stored(values, kind)).reshape(-1).view(np.uint8)
        pieces += (encode_tag(CONTENT, values.nbytes), content.data)
    return pieces


def encode_values(array: npt.ArrayLike) -> pb.TensorProto:
    """Puts an array into a message the way a model server answers: in the list of its type.

    Args:
        array: As for `encode`.

    Returns:
        The message; every element is written out, none is repeated by omission.

    Raises:
        TensorError: The element type cannot travel.

    Example:
        >>> list(encode_values(np.float32([0.5, 2])).float_val)
        [0.5, 2.0]
    """
    values = as_array(array)
    kind = wire_type_of(values.dtype)
    proto = pb.TensorProto.FromString(_described(values.shape, kind.number))
    if kind.stored is None:
        proto.string_val.extend(_strings(values))
        return proto
    stored = _stored(values, kind)
    if kind.listed.kind == "f":
        content = stored.tobytes()
        proto.MergeFromString(encode_tag(kind.field_number, len(content)) + content)
        return proto
    flat = np.ascontiguousarray(stored).reshape(-1)
    if kind.field == "half_val":
        flat = flat.view("<u2")
    getattr(proto, kind.field).extend(flat.tolist())
    return proto


def decode_tensor(proto: pb.TensorProto, *, largest: int = LARGEST_TENSOR) -> npt.NDArray[Any]:
    """Reads a tensor out of its message, whichever way it was put there.

    Args:
        proto: The message. Its values are in `tensor_content` or in the list of its type; a list
            shorter than the tensor repeats its last value, an empty one stands for zeros.
        largest: The most bytes that the array may have.

    Returns:
        The array, of the message's shape; strings as an object array of bytes; bfloat16 as
        ml_dtypes' type where that is installed, else as float32. The array is read-only where it
        shares the message's bytes.

    Raises:
        TensorError: The shape is negative, unknown or too large, or the values do not fill it.

    Example:
        >>> decode_tensor(to_tensor_proto([[1, 2]])).tolist()
        [[1, 2]]
    """
    kind = wire_type(proto.dtype)
    shape = _shape(proto, kind, largest)
    if proto.tensor_content:
        return _from_content(proto.tensor_content, kind, shape)
    values = getattr(proto, kind.field)
    if kind is STRING:
        strings = np.empty(len(values), object)
        strings[:] = list(values)
        return _fill(strings, shape, b"")
    if kind.listed.kind == "f":
        # Floats are written again, all of them in one piece; so are fields of somebody else's.
        with contextlib.suppress(UnreadableError):
            return _decode_pieces(memoryview(proto.SerializeToString()), largest)
    listed: npt.NDArray[Any] = np.fromiter(values, kind.listed, count=len(values))
    return _from_list(listed, kind, shape)


def decode_tensor_bytes(raw: memoryview, *, largest: int = LARGEST_TENSOR) -> npt.NDArray[Any]:
    """Reads a tensor out of the bytes of its message, as `decode` does, but with one copy only.

    Args:
        raw: The bytes.
        largest: The most bytes that the array may have.

    Returns:
        The array, in memory of its own.

    Raises:
        TensorError: As of `decode`.
        google.protobuf.message.DecodeError: The bytes are no message.

    Example:
        >>> decode_tensor_bytes(memoryview(to_tensor_proto([[1, 2]]).SerializeToString())).tolist()
        [[1, 2]]
    """
    try:
        return _decode_pieces(raw, largest)
    except UnreadableError:
        return decode_tensor(pb.TensorProto.FromString(bytes(raw)), largest=largest)


def _decode_pieces(raw: memoryview, largest: int) -> npt.NDArray[Any]:
    pieces, rest = find_field(raw, IN_ONE_PIECE)
    for number, found in pieces.items():
        if any(len(piece) % IN_ONE_PIECE[number] for piece in found):
            raise UnreadableError("a part of an element")
    # What has no values in it is short, and the same in answer after answer.
    read = _read if len(rest) <= _SHORT else _read.__wrapped__
    kind, shape, others = read(rest, largest)
    # Of a field with one value the last counts, also an empty one.
    if CONTENT in pieces and len(pieces[CONTENT][-1]):
        return _from_content(bytearray(pieces[CONTENT][-1]), kind, shape)
    listed = bytearray().join(pieces.get(kind.field_number, ()))
    if kind.listed.kind != "f" or others:
        raise UnreadableError("values in another way than as one piece")
    return _from_list(np.frombuffer(listed, kind.listed), kind, shape)


@functools.lru_cache(maxsize=256)
def _read(rest: bytes, largest: int) -> tuple[WireType, tuple[int, ...], bool]:
    """Returns the type and shape of a message without its one piece, and if it has other values."""
    proto = pb.TensorProto.FromString(rest)
    kind = wire_type(proto.dtype)
    return kind, _shape(proto, kind, largest), bool(len(getattr(proto, kind.field)))


def _from_list(
    listed: npt.NDArray[Any], kind: WireType, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    if kind.stored is not None and kind.stored.kind == "c":
        if listed.size % 2:
            raise TensorError(
                "A complex tensor lacks an imaginary part",
                expected="an even number of values",
                received=listed.size,
            )
        return _fill(listed.view(kind.stored), shape, 0)
    if kind.field == "half_val":
        return _fill(_floats_of(listed.astype("<u2"), kind), shape, 0)
    return _fill(listed.astype(kind.stored, copy=False), shape, 0)


def as_array(values: npt.ArrayLike) -> npt.NDArray[Any]:
    r"""Returns an array like `numpy.asarray`, but one that keeps the zeros that end a byte string.

    Raises:
        TensorError: Nested lists of unequal lengths.

    Example:
        >>> as_array([b"a", b"b" + bytes(2)]).tolist()
        [b'a', b'b\x00\x00']
    """
    if isinstance(values, np.ndarray):
        return values
    try:
        array = np.asarray(values)
        if array.dtype.kind in "SU":
            return np.asarray(values, dtype=object)
    except ValueError as error:
        raise TensorError(
            "This is not an array: its rows have different lengths", received=str(error)
        ) from error
    return array


@functools.lru_cache(maxsize=256)
def _described(shape: tuple[int, ...], number: pb.DataType) -> bytes:
    """Returns the message of a tensor without its values; calls after the first are often alike."""
    proto = pb.TensorProto(dtype=number)
    # A scalar has a shape too: one without dimensions.
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto.SerializeToString()


def _stored(values: npt.NDArray[Any], kind: WireType) -> npt.NDArray[Any]:
    if kind is BFLOAT16:
        return values.astype(values.dtype.newbyteorder("<"), copy=False).view(np.uint16)
    return values.astype(kind.stored, copy=False)


def _strings(values: npt.NDArray[Any]) -> list[bytes]:
    strings = []
    for value in values.reshape(-1).tolist():
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(value, bytes):
            raise TensorError(
                "An array of objects can only be sent as strings",
                expected="bytes or str in every element",
                received=type(value).__name__,
            )
        strings.append(value)
    return strings


def _shape(proto: pb.TensorProto, kind: WireType, largest: int) -> tuple[int, ...]:
    if proto.tensor_shape.unknown_rank:
        raise TensorError("A tensor's shape is unknown", expected="its sizes")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if min(shape, default=0) < 0:
        raise TensorError(
            "A tensor's shape is negative", expected="sizes of 0 or more", received=list(shape)
        )
    # NumPy has no arrays of more than 64 dimensions; TensorFlow none of more than 254.
    if len(shape) > 64:
        raise TensorError("A tensor has too many dimensions", expected="64", received=len(shape))
    size = 8 if kind.stored is None else kind.stored.itemsize
    if math.prod(shape) * size > largest:
        raise TensorError(
            "A tensor's shape is too large for a message",
            expected=f"{largest} bytes at most",
            received=list(shape),
        )
    return shape


def _from_content(
    content: bytes | bytearray, kind: WireType, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    if kind.stored is None:
        raise TensorError("Strings cannot be read from tensor_content", expected="string_val")
    expected = math.prod(shape) * kind.stored.itemsize
    if len(content) != expected:
        raise TensorError(
            f"The bytes of a tensor do not fill its shape {list(shape)}",
            expected=f"{expected} bytes",
            received=f"{len(content)} bytes",
        )
    if kind.name == "bool":
        # A byte other than 0 and 1 would make a bool that equals neither.
        flags: npt.NDArray[Any] = np.frombuffer(content, np.uint8) != 0
        return flags.reshape(shape)
    stored = np.frombuffer(content, kind.stored)
    return (_floats_of(stored, kind) if kind is BFLOAT16 else stored).reshape(shape)


def _floats_of(bits: npt.NDArray[Any], kind: WireType) -> npt.NDArray[Any]:
    """Returns 16-bit patterns as the floats they are."""
    if kind is not BFLOAT16:
        return bits.view(np.float16)
    if importlib.util.find_spec("ml_dtypes") is not None:
        import ml_dtypes

        floats: npt.NDArray[Any] = bits.view(ml_dtypes.bfloat16)
        return floats
    # A bfloat16 is the upper half of the float32 of the same value.
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _fill(values: npt.NDArray[Any], shape: tuple[int, ...], zero: object) -> npt.NDArray[Any]:
    count = math.prod(shape)
    if values.size > count:
        raise TensorError(
            f"A tensor has more values than its shape {list(shape)} holds",
            expected=f"{count} at most",
            received=values.size,
        )
    if values.size == count:
        return values.reshape(shape)
    filled = np.empty(count, values.dtype)
    filled[: values.size] = values
    filled[values.size :] = values[-1] if values.size else zero
    return filled.reshape(shape)

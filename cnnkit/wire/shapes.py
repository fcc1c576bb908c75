"""The shape of a tensor message, and whether its lists hold no more than the shape.

Protobuf gives each element of a list 4 to 40 bytes, of which the message has as few as one. A large
message is therefore checked before protobuf parses it.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import STRING, WIRE_TYPES, TensorError, WireType, wire_type
from cnnkit.wire.protobuf import MAX_FIELDS, UnreadableError, find_fields

# Messages up to this size are parsed unchecked: they cannot become more than 40 MiB.
MAX_UNCHECKED_BYTES = 2**20
# Strings of one tensor, at most: each takes 72 bytes or more in memory.
MAX_STRINGS = 2**22
# Bytes of everything in a tensor besides its values: the type, and a shape of 64 named sizes.
_MAX_HEADER_BYTES = 2**16
_BLOCK_BYTES = 2**20

# Fields of a tensor message: the lists of values by number, and the values as one piece.
LISTS = {kind.field_number: kind for kind in WIRE_TYPES}
CONTENT_FIELD = pb.TensorProto.DESCRIPTOR.fields_by_name["tensor_content"].number


def valid_shape(proto: pb.TensorProto, kind: WireType, max_bytes: int) -> tuple[int, ...]:
    """Return the shape of a message.

    Args:
        proto: The message.
        kind: Its element type.
        max_bytes: Size of the array in bytes, at most.

    Raises:
        TensorError: There is no array of such a shape, or it is too large.

    Example:
        >>> proto = pb.TensorProto()
        >>> _ = proto.tensor_shape.dim.add(size=3)
        >>> valid_shape(proto, wire_type(pb.DT_FLOAT), 12)
        (3,)
    """
    if proto.tensor_shape.unknown_rank:
        raise TensorError("`tensor_shape` must be known, received unknown_rank")
    # NumPy has no arrays of more than 64 dimensions; TensorFlow none of more than 254.
    if len(proto.tensor_shape.dim) > 64:
        raise TensorError(
            "`tensor_shape` must not have more than 64 dimensions",
            received=len(proto.tensor_shape.dim),
        )
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if min(shape, default=0) < 0:
        raise TensorError(
            "`tensor_shape` must not be negative", expected="sizes >= 0", received=list(shape)
        )
    size = 8 if kind.stored is None else kind.stored.itemsize
    if math.prod(shape) * size > max_bytes:
        raise TensorError(
            "`tensor_shape` must not be larger than the limit of a message",
            expected=f"{max_bytes} bytes at most",
            received=list(shape),
        )
    return shape


def check_lists(raw: memoryview, max_bytes: int) -> None:
    """Check that a serialized tensor needs no more memory than its type and its shape say.

    Args:
        raw: The serialized message; small ones are not checked.
        max_bytes: Size of the array in bytes, at most.

    Raises:
        TensorError: The message has too many fields, groups, values in several lists, or more
            values than its shape.
        google.protobuf.message.DecodeError: The bytes are not a valid message.

    Example:
        >>> check_lists(memoryview(b"small"), 2**20)
    """
    if len(raw) <= MAX_UNCHECKED_BYTES:
        return
    try:
        header, values = _count_values(raw)
    except UnreadableError as error:
        raise TensorError(
            f"`raw` of {len(raw):,} bytes must be a plain message", received=str(error)
        ) from error
    proto = pb.TensorProto.FromString(header)
    kind = wire_type(proto.dtype)
    count = math.prod(valid_shape(proto, kind, max_bytes))
    if kind.stored is not None and kind.stored.kind == "c":
        count *= 2  # A real and an imaginary part.
    listed = values.pop(kind.field_number, 0)
    if values.total():
        raise TensorError("`raw` must hold its values in the list of its type alone")
    most = MAX_STRINGS if kind is STRING else max_bytes // kind.listed.itemsize
    if listed > min(count, most):
        raise TensorError(
            f"`{kind.field}` must not be longer than its shape",
            expected=f"{min(count, most):,} values at most",
            received=f"{listed:,}",
        )


def _count_values(raw: memoryview) -> tuple[bytes, Counter[int]]:
    """Return the fields of a tensor besides its values, and the length of each list by number."""
    header: list[memoryview] = []
    size = fields = 0
    values: Counter[int] = Counter()
    for number, begin, content, end in find_fields(raw, 0, len(raw), most=MAX_STRINGS + MAX_FIELDS):
        if number == STRING.field_number:
            values[number] += 1
            continue
        fields += 1
        if number in LISTS:
            values[number] += _count_packed(raw[content:end], number) if content else 1
        elif number != CONTENT_FIELD:
            size += end - begin
            header.append(raw[begin:end])
        if fields > MAX_FIELDS or size > _MAX_HEADER_BYTES:
            raise UnreadableError("`raw` must not hold so many fields besides its values")
    return b"".join(header), values


def _count_packed(piece: memoryview, number: int) -> int:
    """Return the number of elements in a packed list."""
    listed = LISTS[number].listed
    if listed.kind == "f":
        return len(piece) // listed.itemsize
    return count_varints(piece)


def count_varints(raw: memoryview) -> int:
    """Return the number of varints, one after the other, in some bytes.

    Example:
        >>> count_varints(memoryview(bytes([1, 0x80, 2])))
        2
    """
    # The last byte of each is below 128. Compared in blocks, without a copy of the size of `raw`.
    return sum(
        int(np.count_nonzero(np.frombuffer(raw[begin : begin + _BLOCK_BYTES], np.uint8) < 0x80))
        for begin in range(0, len(raw), _BLOCK_BYTES)
    )

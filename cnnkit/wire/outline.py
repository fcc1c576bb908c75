"""Read what a Predict request says of its tensors, without their values.

A server decides by the outline whether it reads the values: protobuf would first copy all of them,
and turns two bytes of some fields into a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import TensorError
from cnnkit.wire.protobuf import MAX_FIELDS, TooManyFieldsError, encode_tag, split_fields
from cnnkit.wire.shapes import CONTENT_FIELD, LISTS, count_varints
from cnnkit.wire.tensors import MAX_REPEATED_BYTES

# Bytes of a message besides the values of its tensors. Names and shapes need a few hundred.
MAX_OUTLINE_BYTES = 2**16
# Tensors of a request. Signatures of networks take one or two.
MAX_INPUTS = 64

_INPUTS, _VALUE = 2, 2
_VALUES = {CONTENT_FIELD, *LISTS}


@dataclass
class RequestOutline:
    """A Predict request whose tensors have a type and a shape, and no values.

    Attributes:
        request: The request.
        tensors: For each input, its tensor with values, serialized, in the memory of the request.
        cost: Bytes of memory that decoding an input takes, if its shape is as declared.
    """

    request: pb.PredictRequest
    tensors: dict[str, memoryview] = field(default_factory=dict)
    cost: dict[str, int] = field(default_factory=dict)


def outline_request(raw: bytes | bytearray) -> RequestOutline:
    """Return the outline of a Predict request.

    Args:
        raw: The serialized request.

    Raises:
        TensorError: The request has too many fields, tensors, or bytes besides its values.
        UnreadableError: The bytes are not a message.
        google.protobuf.message.DecodeError: The bytes are not a valid message.

    Example:
        >>> import numpy as np
        >>> from cnnkit.wire.tensors import to_tensor_proto
        >>> inputs = {"x": to_tensor_proto(np.zeros((2, 3), np.float32))}
        >>> raw = pb.PredictRequest(inputs=inputs).SerializeToString()
        >>> outlined = outline_request(raw)
        >>> len(outlined.request.inputs["x"].tensor_content), outlined.cost["x"]
        (0, 24)
    """
    taken, rest = split_bounded(memoryview(raw), {_INPUTS})
    entries = taken.get(_INPUTS, [])
    if len(entries) > MAX_INPUTS:
        raise TensorError(f"`inputs` must hold {MAX_INPUTS} tensors at most", received=len(entries))
    outline = RequestOutline(pb.PredictRequest.FromString(rest))
    for entry in entries:
        values, key = split_bounded(entry, {_VALUE})
        if len(values.get(_VALUE, ())) > 1:
            raise TensorError("`inputs` must hold each tensor once", received="two under one name")
        [tensor] = values.get(_VALUE) or [memoryview(b"")]
        lists, small = split_bounded(tensor, _VALUES)
        cost = decoded_bytes(pb.TensorProto.FromString(small), lists)
        entry_outline = key + encode_tag(_VALUE, len(small)) + small
        # Protobuf reads the name: it may stand before or after the tensor, or be missing.
        read = pb.PredictRequest.FromString(
            encode_tag(_INPUTS, len(entry_outline)) + entry_outline
        ).inputs
        if not read:
            # Protobuf leaves an entry out that has fields of an unknown kind.
            raise TensorError(
                "`inputs` must be pairs of a name and a tensor", received="other fields in a pair"
            )
        [(name, kept)] = read.items()
        outline.request.inputs[name].CopyFrom(kept)
        outline.tensors[name], outline.cost[name] = tensor, cost
    return outline


def decoded_bytes(outline: pb.TensorProto, lists: Mapping[int, list[memoryview]]) -> int:
    """Return the memory that decoding a tensor takes, by its declared shape.

    Args:
        outline: The tensor without values.
        lists: The values, by the numbers of their fields.

    Raises:
        TensorError: A list holds more values than the shape has elements.

    Example:
        >>> tensor = pb.TensorProto(dtype=pb.DT_INT64)
        >>> tensor.tensor_shape.dim.add(size=2)
        size: 2
        >>> decoded_bytes(tensor, {10: [memoryview(bytes([1, 2]))]})
        66
    """
    sizes = [dim.size for dim in outline.tensor_shape.dim]
    # Shapes that are not valid are refused when the values are decoded.
    count = math.prod(sizes) if all(size >= 0 for size in sizes) else 0
    cost = values = 0
    for number, pieces in lists.items():
        size = sum(map(len, pieces))
        cost += size
        if number == CONTENT_FIELD:
            continue
        kind = LISTS[number]
        if kind.stored is None:
            values = len(pieces)
            # Protobuf keeps a copy of each string, and Python an object.
            cost += size + 100 * values
        elif kind.listed.kind == "f":
            values = size // kind.listed.itemsize
        else:
            values = sum(map(count_varints, pieces))
            # Protobuf's list of 8 bytes a value, while it grows, and the array.
            cost += 4 * 8 * values
        # A complex number is two values.
        if values > 2 * count:
            raise TensorError(
                f"The list of values must not be longer than the shape {sizes} holds",
                received=values,
            )
    # Values that are not sent are repeated.
    return cost + (MAX_REPEATED_BYTES if values < count and CONTENT_FIELD not in lists else 0)


def split_bounded(raw: memoryview, numbers: set[int]) -> tuple[dict[int, list[memoryview]], bytes]:
    """Split a message of a stranger like `split_fields`, within limits of its other fields.

    Args:
        raw: The serialized message.
        numbers: Numbers of the fields to take out.

    Raises:
        TensorError: The message has too many fields, or too many bytes in the other fields.
        UnreadableError: The bytes are not a message.

    Example:
        >>> taken, rest = split_bounded(memoryview(bytes.fromhex("0801 2a04 0000803f")), {5})
        >>> taken[5][0].hex(), rest.hex()
        ('0000803f', '0801')
    """
    try:
        taken, rest = split_fields(raw, numbers, MAX_FIELDS)
    except TooManyFieldsError as error:
        raise TensorError(
            f"`request` must have {MAX_FIELDS} fields in a message at most"
        ) from error
    if len(rest) > MAX_OUTLINE_BYTES:
        raise TensorError(
            f"`request` must have {MAX_OUTLINE_BYTES} bytes besides values of tensors at most",
            received=len(rest),
        )
    return taken, rest

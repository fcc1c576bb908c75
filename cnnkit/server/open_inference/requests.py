"""Inference requests as Predict requests: model names, data types, and values of tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.repository import ModelRepository
from cnnkit.server.status_error import invalid_argument, quote_name
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import WIRE_TYPES, WireType, type_name, wire_type_of
from cnnkit.wire.outline import MAX_INPUTS
from cnnkit.wire.protobuf import MAX_FIELDS, encode_tag
from cnnkit.wire.shapes import CONTENT_FIELD

Pieces = list[bytes | memoryview]

# Names of data types that differ from NumPy's in capitals.
_NAMES = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "string": "BYTES"}
_NAMES |= {"bfloat16": "BF16"}
# The protocol has no complex numbers.
DATATYPES = {
    _NAMES.get(kind.name, kind.name.upper()): kind
    for kind in WIRE_TYPES
    if kind.stored is None or kind.stored.kind != "c"
}
_DATATYPE_OF: dict[int, str] = {kind.number: name for name, kind in DATATYPES.items()}
# Dimensions of an array of NumPy, at most.
_MAX_DIMENSIONS = 64
# Bytes before an element of BYTES, and of a Python object for one.
_LENGTH_BYTES, _STRING_BYTES = 4, 100
# Fields of PredictRequest and of its map of inputs.
_INPUTS, _KEY, _VALUE = 2, 1, 2
# Parameters that would change an answer, and that no server without them can ignore.
_REFUSED = ("classification", "sequence_id", "shared_memory_region")
SIGNATURE = "signature_name"


def model_spec(
    name: str, version: str, repository: ModelRepository, signature: str = ""
) -> pb.ModelSpec:
    """Returns the model, version and signature that a request names.

    Args:
        name: NAME, or NAME:SIGNATURE.
        version: A number or a label; empty for the newest version.
        repository: The models, of which one may have a colon in its name.
        signature: The parameter `signature_name`; empty if it is not given.

    Raises:
        StatusError: If the version is no number of 64 bits, or two signatures are named.
    """
    spec = pb.ModelSpec(name=name, signature_name=signature)
    if ":" in name and not repository.versions(name):
        spec.name, _, named = name.rpartition(":")
        if signature not in ("", named):
            raise invalid_argument(
                f"`{SIGNATURE}` must be the signature of the model name or be left out, received "
                f"{quote_name(signature)} for {quote_name(name)}"
            )
        spec.signature_name = named
    if version.isascii() and version.isdigit():
        # Python converts at most 4300 digits.
        digits = version.lstrip("0") or "0"
        if len(digits) > 19 or int(digits) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {quote_name(version)} to numeric.")
        spec.version.value = int(digits)
    elif version:
        spec.version_label = version
    return spec


def check_parameters(names: Iterable[str], place: str) -> None:
    """Refuses parameters that would change the answer; others may be ignored.

    Raises:
        StatusError: If there is one.
    """
    for name in names:
        if name in _REFUSED or name.startswith("shared_memory"):
            raise invalid_argument(f"The parameter {quote_name(name)} of {place} is not supported")


def datatype_name(number: int) -> str:
    """Returns the protocol's name of an element type.

    Raises:
        StatusError: If it has none.

    Example:
        >>> datatype_name(pb.DT_FLOAT), datatype_name(pb.DT_STRING)
        ('FP32', 'BYTES')
    """
    if number not in _DATATYPE_OF:
        raise invalid_argument(
            f"The Open Inference Protocol has no data type for {type_name(number)}: call Predict"
        )
    return _DATATYPE_OF[number]


def wire_type_named(datatype: str) -> WireType:
    """Returns the element type of a data type.

    Raises:
        StatusError: If there is none of this name.
    """
    if datatype not in DATATYPES:
        raise invalid_argument(
            f"`datatype` must be one of {', '.join(DATATYPES)}, received {quote_name(datatype)}"
        )
    return DATATYPES[datatype]


def count_elements(name: str, shape: Sequence[int]) -> int:
    """Returns the number of elements of a shape.

    Raises:
        StatusError: If it is no shape of an array.
    """
    if len(shape) > _MAX_DIMENSIONS or any(not 0 <= size < 2**63 for size in shape):
        shown = ",".join(str(size)[:20] for size in shape[:8])
        raise invalid_argument(
            f"`shape` of input {quote_name(name)} must have at most {_MAX_DIMENSIONS} dimensions, "
            f"each in 0..{2**63 - 1}, received [{shown}]"
        )
    return math.prod(shape)


def check_count(name: str, found: int, expected: int, what: str) -> None:
    """Checks the number of elements or bytes that an input has.

    Raises:
        StatusError: If it is not that of its shape.
    """
    if found != expected:
        raise invalid_argument(
            f"Input {quote_name(name)} must have {expected} {what} for its datatype and shape, "
            f"received {found}"
        )


def raw_pieces(
    name: str, datatype: str, shape: Sequence[int], raw: memoryview, memory: MemoryAccount
) -> Pieces:
    """Returns the pieces of a TensorProto with the raw values of an input.

    Args:
        name: Name of the input.
        datatype: Its data type.
        shape: Its shape.
        raw: Its elements, little-endian, row by row; each of BYTES after its length.
        memory: The account of the request.

    Raises:
        StatusError: If the values do not fill the shape.
    """
    kind, count = wire_type_named(datatype), count_elements(name, shape)
    if kind.stored is None:
        return string_pieces(name, shape, _split_strings(name, raw, count, memory))
    check_count(name, len(raw), count * kind.stored.itemsize, "bytes")
    pieces: Pieces = [_header(kind, shape)]
    if count:
        pieces += [encode_tag(CONTENT_FIELD, len(raw)), raw]
    return pieces


def string_pieces(name: str, shape: Sequence[int], strings: Sequence[bytes | memoryview]) -> Pieces:
    """Returns the pieces of a TensorProto with texts or files.

    Raises:
        StatusError: If their number is not that of the shape.
    """
    kind = DATATYPES["BYTES"]
    check_count(name, len(strings), count_elements(name, shape), "elements")
    pieces: Pieces = [_header(kind, shape)]
    for string in strings:
        pieces += [encode_tag(kind.field_number, len(string)), string]
    return pieces


def predict_request(
    spec: pb.ModelSpec,
    tensors: Sequence[tuple[str, Pieces]],
    outputs: Iterable[str],
    memory: MemoryAccount,
) -> bytes:
    """Returns a serialized PredictRequest.

    Args:
        spec: The model.
        tensors: Name and pieces of each input.
        outputs: Names of the requested outputs; none for all.
        memory: The account of the request, which pays for the copy of the values.

    Raises:
        StatusError: If there are too many inputs, or two of one name, or memory is full.
    """
    if len(tensors) > MAX_INPUTS:
        raise invalid_argument(
            f"`inputs` must hold {MAX_INPUTS} tensors at most, received {len(tensors)}"
        )
    names = [name for name, _ in tensors]
    for name in names:
        if names.count(name) > 1:
            raise invalid_argument(f"`inputs` must hold {quote_name(name)} once")
    pieces: Pieces = [pb.PredictRequest(model_spec=spec, output_filter=outputs).SerializeToString()]
    for name, tensor in tensors:
        encoded = name.encode()
        key = encode_tag(_KEY, len(encoded)) + encoded
        value = encode_tag(_VALUE, sum(map(len, tensor)))
        size = len(key) + len(value) + sum(map(len, tensor))
        pieces += [encode_tag(_INPUTS, size), key, value, *tensor]
    memory.add(sum(map(len, pieces)))
    return b"".join(pieces)


def raw_values(array: np.ndarray) -> bytes:
    r"""Returns the raw values of an output.

    Example:
        >>> raw_values(np.array([b"ab"], object)), raw_values(np.int32([1]))
        (b'\x02\x00\x00\x00ab', b'\x01\x00\x00\x00')
    """
    if array.dtype == object:
        return b"".join(
            len(one).to_bytes(_LENGTH_BYTES, "little") + one for one in array.reshape(-1)
        )
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def datatype_of(array: np.ndarray) -> str:
    """Returns the data type of an output.

    Raises:
        StatusError: If it has none.
    """
    return datatype_name(wire_type_of(array.dtype).number)


def _header(kind: WireType, shape: Sequence[int]) -> bytes:
    tensor = pb.TensorProto(dtype=kind.number)
    # Also for a scalar: without a shape it would be of unknown rank for some readers.
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor.SerializeToString()


def _split_strings(
    name: str, raw: memoryview, count: int, memory: MemoryAccount
) -> list[memoryview]:
    """Splits the raw values of BYTES, whose number is known from the shape."""
    if count > MAX_FIELDS:
        raise invalid_argument(
            f"Input {quote_name(name)} must have {MAX_FIELDS} elements of BYTES at most, received "
            f"{count}"
        )
    memory.add(_STRING_BYTES * count)
    strings, place = list[memoryview](), 0
    for _ in range(count):
        begin = place + _LENGTH_BYTES
        place = begin + int.from_bytes(raw[place:begin], "little")
        if begin > len(raw) or place > len(raw):
            raise invalid_argument(
                f"Input {quote_name(name)} must have {count} elements of BYTES, each after its "
                f"length in {_LENGTH_BYTES} bytes, received {len(raw)} bytes, which end in element "
                f"{len(strings)}"
            )
        strings.append(raw[begin:place])
    check_count(name, len(raw), place, "bytes")
    return strings

"""The JSON of TensorFlow Serving's REST API: Predict requests and responses, status, metadata.

Facts, by which a client of TensorFlow Serving works here too: https://www.tensorflow.org/tfx/serving/api_rest
for the formats; `util/json_tensor.cc` of its sources for the checks and the texts of errors.
"""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from cnnkit._untrusted.json_documents import parse_json
from cnnkit.errors import DataError
from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.predict import Outputs, PreparedCall
from cnnkit.server.service import Find
from cnnkit.server.status_error import StatusError, invalid_argument, quote_name
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.dtypes import TensorError, WireType, wire_type
from cnnkit.wire.tensors import to_tensor_proto

# Bytes that Python needs for a number or a text with its place in a list, and for an object.
_VALUE_BYTES, _OBJECT_BYTES = 64, 256
# Copies of the text: itself, its strings, and what they encode. Four times as many bytes for
# characters beyond Latin 1, which escapes can name too.
_COPIES, _WIDE_COPIES = 3, 9
# Bytes of a number in a response: as a Python object, and as text.
ANSWER_BYTES = 64
# A larger integer is not exact in the type: 24 and 53 bits.
_EXACT = {4: 2**24, 8: 2**53, 2: 2**11}
_BASE64, _BYTES_SUFFIX = "b64", "_bytes"
# An escape in JSON: a pair of surrogates; half of one, which is group 1; any other.
_ESCAPE = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.", re.DOTALL)


def parse_request(raw: bytes | bytearray, memory: MemoryAccount, max_bytes: int) -> dict[str, Any]:
    """Parses the JSON of a request.

    NaN and Infinity are numbers, as in TensorFlow Serving.

    Args:
        raw: The document.
        memory: The account of the request, which pays for the parsed document.
        max_bytes: Largest number of bytes.

    Raises:
        StatusError: INVALID_ARGUMENT if it is not valid, RESOURCE_EXHAUSTED if memory is full.
    """
    if not raw:
        raise invalid_argument("JSON Parse error: The document is empty")
    memory.add(_parsed_bytes(raw))
    try:
        document = parse_json(bytes(raw), "The request", max_bytes=max_bytes, nan=True)
    except DataError as error:
        raise invalid_argument(f"JSON Parse error: {error}") from error
    if b"\\u" in raw and any(escape[1] for escape in _ESCAPE.finditer(raw)):
        # Such a text is not Unicode: no message, log or answer could hold it.
        raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.")
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_shown(document)} Is not object")
    if not isinstance(document.get("signature_name", ""), str):
        raise invalid_argument(
            f"JSON Value: {_shown(document)} not formatted correctly. 'signature_name' key must be "
            "a string value."
        )
    return document


def predict_functions(
    spec: pb.ModelSpec, max_bytes: int
) -> tuple[
    Callable[[bytes | bytearray, Find, MemoryAccount], bytes],
    Callable[[PreparedCall, Outputs, MemoryAccount], bytes],
]:
    """Returns the functions that read a Predict request and write its response, as JSON.

    Args:
        spec: The model, and its version or label.
        max_bytes: Largest number of bytes of the JSON.
    """
    by_row = False

    def read(raw: bytes | bytearray, find: Find, memory: MemoryAccount) -> bytes:
        nonlocal by_row
        document = parse_request(raw, memory, max_bytes)
        by_row = "instances" in document
        request = pb.PredictRequest(model_spec=spec)
        request.model_spec.signature_name = document.get("signature_name", "")
        for name, array in _read_inputs(document, _signature_inputs(request.model_spec, find)):
            request.inputs[name].CopyFrom(to_tensor_proto(array))
        serialized = request.SerializeToString()
        memory.add(2 * len(serialized))
        return serialized

    def write(call: PreparedCall, outputs: Outputs, memory: MemoryAccount) -> bytes:
        memory.add(
            sum(ANSWER_BYTES * array.size + 4 * _text_bytes(array) for array in outputs.values())
        )
        return dump_json(_rows(outputs) if by_row else _columns(outputs))

    return read, write


def message_json(message: Message) -> dict[str, Any]:
    """Returns a message in protobuf's JSON with the fields' own names, also those with defaults."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def metadata_json(response: pb.GetModelMetadataResponse) -> dict[str, Any]:
    """Returns the response of GetModelMetadata, whose signatures are unpacked."""
    definitions = pb.SignatureDefMap.FromString(response.metadata[methods.SIGNATURE_DEF].value)
    return {
        "model_spec": message_json(response.model_spec),
        "metadata": {methods.SIGNATURE_DEF: message_json(definitions)},
    }


def dump_json(document: Any) -> bytes:
    """Returns a document as JSON of one line, with the NaN and Infinity of TensorFlow Serving."""
    return json.dumps(document).encode()


def _parsed_bytes(raw: bytes | bytearray) -> int:
    """Returns the memory that a parsed document takes, at most: 25 times its bytes and more."""
    copies = _COPIES if raw.isascii() and b"\\" not in raw else _WIDE_COPIES
    values = raw.count(b",") + raw.count(b"[") + raw.count(b":")
    return copies * len(raw) + _VALUE_BYTES * values + _OBJECT_BYTES * raw.count(b"{")


def _signature_inputs(spec: pb.ModelSpec, find: Find) -> Mapping[str, pb.TensorInfo]:
    name = spec.signature_name or methods.DEFAULT_SIGNATURE
    definition = find(spec).definitions.signature_def.get(name)
    if definition is None:
        raise invalid_argument(
            f'Serving signature name: "{quote_name(name)}" not found in signature def'
        )
    if not definition.inputs:
        raise invalid_argument(f"Failed to get input map for signature: {quote_name(name)}")
    return definition.inputs


def _read_inputs(
    document: dict[str, Any], expected: Mapping[str, pb.TensorInfo]
) -> Iterable[tuple[str, np.ndarray]]:
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        columns = _columns_of_rows(document["instances"], sorted(expected))
    elif "inputs" in document:
        columns = _named_inputs(document["inputs"], sorted(expected))
    else:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    for name, values in columns.items():
        yield name, to_array(name, values, expected[name].dtype)


def _columns_of_rows(rows: Any, names: list[str]) -> dict[str, Any]:
    """Returns the values of each input, from the list `instances`."""
    if not isinstance(rows, list):
        raise invalid_argument(
            f"JSON Value: {_shown(rows)} Excepting 'instances' to be an list/array"
        )
    if not rows:
        raise invalid_argument("JSON Value: [] No values in 'instances' array")
    if not _is_named(rows[0]):
        if len(names) > 1:
            raise invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input "
                "tensors required as per tensorinfo_map"
            )
        for position, row in enumerate(rows):
            if _is_named(row):
                raise invalid_argument(
                    f"Expecting value/list but got object at item {position} of input list"
                )
        return {names[0]: rows}
    for position, row in enumerate(rows):
        if not _is_named(row):
            raise invalid_argument(
                f"Expecting object but got list at item {position} of input list"
            )
        if sorted(row) != names:
            raise invalid_argument(
                f"Failed to process element: {position} of 'instances' list. JSON object: "
                f"{_shown(row)} keys must be equal to: {quote_name(','.join(names))}"
            )
    return {name: [row[name] for row in rows] for name in names}


def _named_inputs(inputs: Any, names: list[str]) -> dict[str, Any]:
    """Returns the values of each input, from `inputs`."""
    if not _is_named(inputs):
        if len(names) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        return {names[0]: inputs}
    for name in names:
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {quote_name(name)} in 'inputs' object.")
    return {name: inputs[name] for name in names}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == [_BASE64] and isinstance(value[_BASE64], str)


def to_array(name: str, values: Any, number: int) -> np.ndarray:
    """Converts a value, or lists of values inside each other, to an array of a `DataType`.

    Raises:
        StatusError: If a value is not of the type, or the lists are not a rectangle.
    """
    level, shape = [values], list[int]()
    while level and isinstance(level[0], list):
        shape.append(len(level[0]))
        for one in level:
            if not isinstance(one, list) or len(one) != shape[-1]:
                raise invalid_argument(
                    f"JSON Value: {_shown(one)} of input {quote_name(name)} must be a list of "
                    f"{shape[-1]} values, as the first one is"
                )
        level = list(itertools.chain.from_iterable(level))
    kind = _wire_type(number)
    if kind.stored is None:
        array = np.empty(len(level), object)
        array[:] = _strings(level)
    else:
        _check_numbers(level, kind)
        array = np.array(level, kind.name)
    return array.reshape(shape)


def _wire_type(number: int) -> WireType:
    try:
        kind = wire_type(number)
    except TensorError as error:
        raise invalid_argument(str(error)) from error
    if kind.name == "bfloat16" or (kind.stored is not None and kind.stored.kind == "c"):
        raise invalid_argument(f"Conversion of JSON values to type {kind.name} is not supported")
    return kind


def _strings(values: list[Any]) -> list[bytes]:
    found = []
    for value in values:
        if _is_base64(value):
            found.append(_decode_base64(value[_BASE64]))
        elif isinstance(value, str):
            found.append(value.encode())
        elif isinstance(value, dict):
            raise invalid_argument(
                f"JSON Value: {_shown(value)} not formatted correctly for base64 data"
            )
        else:
            raise _type_error(value, "string")
    return found


def _decode_base64(text: str) -> bytes:
    """Decodes base64, with or without its padding, as TensorFlow Serving."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def _check_numbers(values: list[Any], kind: WireType) -> None:
    """Checks that numbers or booleans fit a type."""
    stored = np.dtype(kind.name)
    allowed: set[type] = {bool} if stored.kind == "b" else {int}
    allowed |= {float} if stored.kind == "f" else set()
    if not set(map(type, values)) <= allowed:
        raise _type_error(next(one for one in values if type(one) not in allowed), kind.name)
    if stored.kind == "b" or not values:
        return
    least, most = min(values), max(values)
    if stored.kind == "f":
        exact, largest = _EXACT[stored.itemsize], float(np.finfo(stored).max)
        # Most values are small, so that few have to be looked at one by one.
        if -exact < least and most < exact:
            return
        for value in values:
            is_whole = type(value) is int
            if abs(value) >= exact if is_whole else largest < abs(value) < math.inf:
                raise invalid_argument(
                    f"Cannot convert JSON value: {_shown(value)} to {kind.name} without loss of "
                    "precision."
                )
        return
    for value in (least, most):
        if not np.iinfo(stored).min <= value <= np.iinfo(stored).max:
            raise _type_error(value, kind.name)


def _type_error(value: Any, expected: str) -> StatusError:
    names = {type(None): "Null", bool: str(value), str: "String", dict: "Object", list: "Array"}
    return invalid_argument(
        f"JSON Value: {_shown(value)} Type: {names.get(type(value), 'Number')} is not of expected "
        f"type: {expected}"
    )


def _shown(value: Any) -> str:
    """Returns the beginning of a value for an error, without dumping all of a large one."""
    pieces, length = [], 0
    for piece in json.JSONEncoder().iterencode(value):
        pieces.append(piece[:200])
        length += len(pieces[-1])
        if length > 200:
            break
    return quote_name("".join(pieces)[:200])


def _rows(outputs: Outputs) -> dict[str, Any]:
    sizes = {array.shape[0] if array.ndim else None for array in outputs.values()}
    if len(sizes) > 1 or None in sizes:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in sorted(outputs.items()))
        raise invalid_argument(
            f"The outputs must have the same first dimension for 'instances': {shapes}; send "
            "'inputs' instead"
        )
    columns = {name: listed(name, array) for name, array in sorted(outputs.items())}
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(names, row, strict=True)) for row in rows]}


def _columns(outputs: Outputs) -> dict[str, Any]:
    columns = {name: listed(name, array) for name, array in sorted(outputs.items())}
    return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}


def listed(name: str, array: np.ndarray) -> Any:
    """Returns an array as lists; text of a name that ends in `_bytes` as base64."""
    if array.dtype.kind == "f" and array.itemsize < 8:
        # The shortest digits that give the same float32: 0.1, not 0.10000000149011612.
        return array.astype("U").astype(np.float64).tolist()
    if array.dtype != object:
        return array.tolist()
    if name.endswith(_BYTES_SUFFIX):
        convert: Callable[[bytes], Any] = _encode_base64
    else:
        convert = functools.partial(str, encoding="utf-8", errors="replace")
    converted = np.empty(array.size, object)
    converted[:] = [convert(value) for value in array.flat]
    return converted.reshape(array.shape).tolist()


def _encode_base64(value: bytes) -> dict[str, str]:
    return {_BASE64: base64.b64encode(value).decode()}


def _text_bytes(array: np.ndarray) -> int:
    return sum(map(len, array.flat)) if array.dtype == object else 0

"""The JSON of the protocol's requests and responses, and the binary tensors after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.open_inference.requests import (
    SIGNATURE,
    Pieces,
    check_count,
    check_parameters,
    count_elements,
    datatype_of,
    raw_pieces,
    raw_values,
    wire_type_named,
)
from cnnkit.server.predict import Outputs, PreparedCall
from cnnkit.server.rest_json import ANSWER_BYTES, dump_json, listed, parse_request, to_array
from cnnkit.server.status_error import invalid_argument, quote_name
from cnnkit.wire.outline import MAX_INPUTS
from cnnkit.wire.tensors import encode_tensor

_T = TypeVar("_T")


@dataclass
class InferDocument:
    """What a request says besides its tensors.

    Attributes:
        id: The client's id of the request; None if it has none.
        signature: The parameter `signature_name`; empty if it is not given.
        outputs: Names of the requested outputs, and whether each is to be binary; empty for all.
        binary: Whether outputs are to be binary that are not named.
    """

    id: str | None = None
    signature: str = ""
    outputs: dict[str, bool] = field(default_factory=dict)
    binary: bool = False


def read_infer_document(
    document: InferDocument, raw: bytes | bytearray, size: int, memory: MemoryAccount
) -> list[tuple[str, Pieces]]:
    """Reads a request.

    Args:
        document: Filled with what the request says besides its tensors.
        raw: The body.
        size: Bytes of the JSON; binary tensors follow.
        memory: The account of the request.

    Returns:
        Name and TensorProto, in pieces, of each input.

    Raises:
        StatusError: If the request is not consistent, or memory is full.
    """
    if size < len(raw):
        memory.add(size)
    parsed = parse_request(raw if size == len(raw) else raw[:size], memory, max_bytes=size)
    if "id" in parsed:
        document.id = _typed(parsed, "id", str, "")
    parameters = _parameters(parsed, "the request")
    document.signature = _typed(parameters, SIGNATURE, str, "")
    document.binary = _typed(parameters, "binary_data_output", bool, False)
    for output in _objects(parsed, "outputs"):
        name = _typed(output, "name", str, None)
        asked = _parameters(output, f"output {quote_name(name)}")
        document.outputs[name] = _typed(asked, "binary_data", bool, document.binary)
    binary, tensors = memoryview(raw)[size:], []
    for tensor in _objects(parsed, "inputs"):
        name = _typed(tensor, "name", str, None)
        length = _typed(
            _parameters(tensor, f"input {quote_name(name)}"), "binary_data_size", int, None, True
        )
        datatype, shape = _typed(tensor, "datatype", str, None), _shape(tensor, name)
        if length is None:
            tensors.append((name, _listed_pieces(name, datatype, shape, tensor)))
            continue
        if "data" in tensor or not 0 <= length <= len(binary):
            raise invalid_argument(
                f"Input {quote_name(name)} must have `data` or a `binary_data_size` within the "
                f"{len(binary)} bytes that are left of the body, received {length}"
            )
        tensors.append((name, raw_pieces(name, datatype, shape, binary[:length], memory)))
        binary = binary[length:]
    if len(binary):
        raise invalid_argument(f"The body has {len(binary)} bytes that belong to no input")
    return tensors


def write_infer_document(
    document: InferDocument,
    name: str,
    call: PreparedCall,
    outputs: Outputs,
    memory: MemoryAccount,
) -> tuple[bytes, int | None]:
    """Returns the body of a response, and the bytes of its JSON if binary tensors follow.

    Args:
        document: The request.
        name: Name of the model, as the client gave it.
        call: The call that the request has become.
        outputs: Its outputs.
        memory: The account of the request.

    Raises:
        StatusError: If an output has no data type of the protocol, or is text that JSON cannot
            hold, or memory is full.
    """
    described, binary = list[dict[str, Any]](), list[bytes]()
    for output in call.outputs:
        array = outputs[output]
        one: dict[str, Any] = {"name": output, "datatype": datatype_of(array)}
        one["shape"] = list(array.shape)
        if document.outputs.get(output, document.binary):
            values = raw_values(array)
            # The values and the body.
            memory.add(2 * len(values))
            one["parameters"] = {"binary_data_size": len(values)}
            binary.append(values)
        else:
            text = sum(map(len, array.flat)) if array.dtype == object else 0
            memory.add(ANSWER_BYTES * array.size + 4 * text)
            one["data"] = _json_values(output, array)
        described.append(one)
    answer: dict[str, Any] = {"model_name": name, "model_version": str(call.servable.version)}
    if document.id is not None:
        answer["id"] = document.id
    encoded = dump_json({**answer, "outputs": described})
    return b"".join((encoded, *binary)), len(encoded) if binary else None


def _json_values(name: str, array: np.ndarray) -> list[Any]:
    if array.dtype == object:
        try:
            return [value.decode() for value in array.flat]
        except UnicodeDecodeError as error:
            raise invalid_argument(
                f"Output {quote_name(name)} is not UTF-8: ask for it with `binary_data`"
            ) from error
    if array.dtype.kind == "V":
        # bfloat16 of ml_dtypes.
        array = array.astype(np.float32)
    values: list[Any] = listed(name, array.reshape(-1))
    return values


def _listed_pieces(
    name: str, datatype: str, shape: Sequence[int], tensor: dict[str, Any]
) -> Pieces:
    if not isinstance(tensor.get("data"), list):
        raise invalid_argument(f"Input {quote_name(name)} must have a list `data`")
    kind, count = wire_type_named(datatype), count_elements(name, shape)
    array = to_array(name, tensor["data"], kind.number)
    check_count(name, array.size, count, "elements")
    if array.ndim > 1 and list(array.shape) != list(shape):
        raise invalid_argument(
            f"`data` of input {quote_name(name)} must be flat or have the shape "
            f"{list(shape)[:8]}, received {list(array.shape)[:8]}"
        )
    return encode_tensor(array.reshape(shape))


def _shape(tensor: dict[str, Any], name: str) -> list[int]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise invalid_argument(f"Input {quote_name(name)} must have a list of numbers `shape`")
    return shape


def _objects(parsed: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = parsed.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise invalid_argument(f"`{key}` must be a list of objects")
    if len(found) > MAX_INPUTS:
        raise invalid_argument(
            f"`{key}` must hold {MAX_INPUTS} tensors at most, received {len(found)}"
        )
    return found


def _parameters(parsed: dict[str, Any], place: str) -> dict[str, Any]:
    found = parsed.get("parameters", {})
    if not isinstance(found, dict):
        raise invalid_argument(f"`parameters` of {place} must be an object")
    check_parameters(found, place)
    return found


def _typed(
    parsed: dict[str, Any], key: str, kind: type[_T], default: Any, optional: bool = False
) -> Any:
    """Returns a value of a type; refuses another type, and its lack if there is no default."""
    value = parsed.get(key, default)
    if type(value) is kind or (value is None and optional):
        return value
    names = {str: "a text", bool: "true or false", int: "a whole number"}
    raise invalid_argument(f"`{key}` must be {names[kind]}")

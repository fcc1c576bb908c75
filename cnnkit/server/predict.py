"""The Predict call: checks of a request, in order, and encoding of the response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import numpy as np

from cnnkit.server.image_work import decoding_work
from cnnkit.server.status_error import StatusError, invalid_argument, quote_name
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.dtypes import TensorError, type_name
from cnnkit.wire.outline import RequestOutline, outline_request
from cnnkit.wire.pixels import IMAGES, find_invalid_pixel
from cnnkit.wire.protobuf import UnreadableError
from cnnkit.wire.tensors import MAX_TENSOR_BYTES, decode_tensor_bytes, encode_values

if TYPE_CHECKING:
    from cnnkit.server.servable import SavedModelServable

Outputs = dict[str, np.ndarray]

# TensorFlow's names of types that differ from NumPy's.
_TENSORFLOW_NAMES = {"float32": "float", "float64": "double", "float16": "half"}


@dataclass(frozen=True)
class PreparedCall:
    """A decoded Predict request that fits its signature.

    Attributes:
        servable: The model version that runs it.
        signature: Name of the signature.
        inputs: Arrays of all inputs by name.
        outputs: Names of the requested outputs.
        rows: First dimension if it is the same for every input, else None.
    """

    servable: SavedModelServable
    signature: str
    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...]
    rows: int | None

    def run(self) -> Outputs:
        """Runs the call alone and returns its outputs.

        Raises:
            StatusError: If the graph fails.
        """
        return self.servable.run(self.signature, self.inputs, self.outputs)


def prepare_predict(
    raw: bytes | bytearray,
    find: Callable[[pb.ModelSpec], SavedModelServable],
    *,
    max_tensor_bytes: int = MAX_TENSOR_BYTES,
    max_rows: int | None = None,
    max_pixels: int | None = None,
    add_memory: Callable[[int], None] = lambda size: None,
) -> PreparedCall:
    """Decodes and checks a Predict request.

    The model, the signature, and the names, types and shapes of the tensors are checked before the
    values of the tensors are read. A tensor of the wrong rank crashes TensorFlow's convolution and
    with it the whole process. Pixels are checked for every export of cnnkit: graphs of version
    0.1.0 and OpenVINO do not.

    Args:
        raw: The serialized request.
        find: Returns the servable of a `model_spec`.
        max_tensor_bytes: Largest input in memory, however short its message.
        max_rows: Largest first dimension; None for any.
        max_pixels: Largest number of pixels of all image files; None for any. See `decoding_work`.
        add_memory: Called with the bytes that the inputs will take, before they are decoded.

    Returns:
        The checked call.

    Raises:
        StatusError: If the request is invalid.
    """
    outline = read_outline(raw)
    request = outline.request
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    servable = find(request.model_spec)
    signature = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
    definition = servable.definitions.signature_def.get(signature)
    if definition is None:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'Serving signature key "{quote_name(signature)}" not found.',
        )
    outputs = _select_outputs(request.output_filter, definition.outputs)
    inputs, rows = read_inputs(
        outline,
        definition.inputs,
        max_tensor_bytes=max_tensor_bytes,
        max_rows=max_rows,
        add_memory=add_memory,
    )
    if max_pixels is not None:
        _check_work(inputs, max_pixels)
    if servable.takes_pixels and IMAGES in inputs and inputs[IMAGES].dtype.kind not in "Oc":
        problem = find_invalid_pixel(inputs[IMAGES])
        if problem is not None:
            raise invalid_argument(problem)
    return PreparedCall(servable, signature, inputs, outputs, rows)


def read_outline(raw: bytes | bytearray) -> RequestOutline:
    """Reads a Predict request without the values of its tensors.

    Args:
        raw: The serialized request.

    Raises:
        StatusError: INVALID_ARGUMENT if it has too many tensors or fields, INTERNAL if it is not a
            message.
    """
    try:
        return outline_request(raw)
    except TensorError as error:
        raise invalid_argument(f"request parsing error\n{error}") from error
    except UnreadableError as error:
        raise StatusError(grpc.StatusCode.INTERNAL, "") from error


def read_inputs(
    outline: RequestOutline,
    expected: Mapping[str, pb.TensorInfo],
    *,
    max_tensor_bytes: int = MAX_TENSOR_BYTES,
    max_rows: int | None = None,
    add_memory: Callable[[int], None] = lambda size: None,
) -> tuple[dict[str, np.ndarray], int | None]:
    """Decodes the inputs of a request if they fit a signature.

    Nothing is decoded before its type and its shape are checked: a message of 30 bytes can declare
    a tensor of any size.

    Args:
        outline: The request.
        expected: The inputs of the signature.
        max_tensor_bytes: Largest input in memory, however short its message.
        max_rows: Largest first dimension; None for any.
        add_memory: Called with the bytes that the inputs will take, before they are decoded.

    Returns:
        The arrays by name, and their first size if it is the same for every input, else None.

    Raises:
        StatusError: If the tensors do not fit.
    """
    given = outline.request.inputs
    _check_names(given, expected)
    rows = _check_shapes(given, expected)
    if rows is not None and max_rows is not None and rows > max_rows:
        raise invalid_argument(
            f"Task size {rows} is larger than maximum input batch size {max_rows}"
        )
    add_memory(sum(outline.cost.values()))
    inputs = {
        name: _decode(name, outline.tensors[name], max_tensor_bytes) for name in sorted(expected)
    }
    return inputs, rows


def encode_predict_response(call: PreparedCall, outputs: Outputs) -> pb.PredictResponse:
    """Return the response: the outputs and the model version that computed them."""
    response = pb.PredictResponse()
    response.model_spec.name = call.servable.name
    response.model_spec.version.value = call.servable.version
    response.model_spec.signature_name = call.signature
    for name, array in outputs.items():
        response.outputs[name].CopyFrom(encode_values(array))
    return response


def _check_names(
    given: Mapping[str, pb.TensorProto], expected: Mapping[str, pb.TensorInfo]
) -> None:
    if len(given) != len(expected):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(expected)} "
            f"len({_set(given)}) != len({_set(expected)}). "
            f"Sent extra: {_set(set(given) - set(expected))}. "
            f"Missing but required: {_set(set(expected) - set(given))}."
        )
    for name in sorted(expected):
        if name not in given:
            raise invalid_argument(
                f"Signature input alias: {name}(feed name: {expected[name].name}) not found in "
                "request and no default value provided. Inputs expected to be in the request "
                f"{_set(given)}, or default input alias set: "
            )


def _decode(name: str, tensor: memoryview, max_bytes: int) -> np.ndarray:
    try:
        return decode_tensor_bytes(tensor, max_bytes=max_bytes)
    except TensorError as error:
        # Clients show the first line; the second one names the fault of the tensor.
        raise invalid_argument(f"tensor parsing error: {quote_name(name)}\n{error}") from error


def _check_work(inputs: Mapping[str, np.ndarray], most: int) -> None:
    """Refuses image files that take long to decode: a file of 44 kB may have 15 megapixels."""
    files = (file for array in inputs.values() if array.dtype == object for file in array.flat)
    pixels = decoding_work(files)
    if pixels > most:
        raise invalid_argument(
            f"the image files of a request have {pixels} pixels, each counted by the work of "
            f"decoding it, and may have {most}: send fewer or smaller images at once"
        )


def _select_outputs(names: Iterable[str], known: Mapping[str, pb.TensorInfo]) -> tuple[str, ...]:
    chosen = tuple(names)
    for name in chosen:
        if name not in known:
            raise invalid_argument(
                f"output tensor alias not found in signature: {quote_name(name)} "
                f"Outputs expected to be in the set {_set(known)}."
            )
    return chosen or tuple(sorted(known))


def _check_shapes(
    given: Mapping[str, pb.TensorProto], expected: Mapping[str, pb.TensorInfo]
) -> int | None:
    """Checks declared types and shapes, and returns the first size if all inputs have the same."""
    rows: set[int | None] = set()
    for position, (name, info) in enumerate(sorted(expected.items())):
        shape = [dim.size for dim in given[name].tensor_shape.dim]
        rows.add(shape[0] if shape else None)
        if given[name].dtype != info.dtype:
            raise invalid_argument(
                f"Expects arg[{position}] to be {_type_name(info.dtype)} "
                f"but {_type_name(given[name].dtype)} is provided"
            )
        if info.tensor_shape.unknown_rank or given[name].tensor_shape.unknown_rank:
            continue
        sizes = [dim.size for dim in info.tensor_shape.dim]
        fits = len(shape) == len(sizes) and all(
            expected_size in (-1, size) for expected_size, size in zip(sizes, shape, strict=True)
        )
        if not fits:
            wanted = ",".join("?" if size == -1 else str(size) for size in sizes)
            received = ",".join(map(str, shape))
            raise invalid_argument(
                f"Shape of tensor {name} [{received}] is not compatible with expected shape "
                f"[{wanted}]."
            )
    return rows.pop() if len(rows) == 1 else None


def _type_name(number: int) -> str:
    name = type_name(number)
    return _TENSORFLOW_NAMES.get(name, name)


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(map(quote_name, sorted(names))) + "}"

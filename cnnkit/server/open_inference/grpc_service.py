"""The protocol's gRPC service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from cnnkit.server.calls import CallHandler, Context, parse_small
from cnnkit.server.health import HealthServicer
from cnnkit.server.limits import ReceivedRequest
from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.open_inference.model_info import (
    describe_signature,
    is_model_ready,
    server_metadata,
)
from cnnkit.server.open_inference.requests import (
    SIGNATURE,
    Pieces,
    check_count,
    check_parameters,
    count_elements,
    datatype_of,
    model_spec,
    predict_request,
    raw_pieces,
    raw_values,
    string_pieces,
    wire_type_named,
)
from cnnkit.server.predict import Outputs, PreparedCall
from cnnkit.server.repository import ModelRepository
from cnnkit.server.service import Find, PredictionServicer
from cnnkit.server.status_error import StatusError, invalid_argument, quote_name
from cnnkit.wire import open_inference_pb2 as v2
from cnnkit.wire.dtypes import TensorError
from cnnkit.wire.outline import split_bounded
from cnnkit.wire.protobuf import UnreadableError
from cnnkit.wire.shapes import count_varints

SERVICE = "inference.GRPCInferenceService"

# Fields of ModelInferRequest, and of an input in it.
_INPUTS, _RAW, _CONTENTS = 5, 7, 5
_LISTS = {field.number: field.name for field in v2.InferTensorContents.DESCRIPTOR.fields}
# The list of each element type; those of 16-bit floats do not exist.
_LIST_OF = {
    "bool": "bool_contents",
    **dict.fromkeys(("int8", "int16", "int32"), "int_contents"),
    "int64": "int64_contents",
    **dict.fromkeys(("uint8", "uint16", "uint32"), "uint_contents"),
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
    "string": "bytes_contents",
}
# Protobuf's list of 8 bytes a value, while it grows, and the array.
_LISTED_BYTES = 4 * 8


class InferenceServicer:
    """The service `inference.GRPCInferenceService`.

    Args:
        calls: Admits and answers the calls.
        service: Runs Predict.
        health: Knows whether the models can be called.
        repository: The models.

    Example:
        >>> service = InferenceServicer(calls, predict, health, repository)  # doctest: +SKIP
        >>> server.add_generic_rpc_handlers([service.handler()])  # doctest: +SKIP
    """

    def __init__(
        self,
        calls: CallHandler,
        service: PredictionServicer,
        health: HealthServicer,
        repository: ModelRepository,
    ) -> None:
        self._calls = calls
        self._service = service
        self._health = health
        self._repository = repository

    def handler(self) -> grpc.GenericRpcHandler:
        """Returns the handler of the service.

        Questions of probes are answered at the limits too.
        """
        repository, calls = self._repository, self._calls

        def ready(request: v2.ServerReadyRequest) -> Message:
            is_ready = self._health.is_ready() and not calls.limiter.stopping
            return v2.ServerReadyResponse(ready=is_ready)

        def model_ready(request: v2.ModelReadyRequest) -> Message:
            is_ready = is_model_ready(request.name, request.version, repository)
            is_open = self._health.is_live() and not calls.limiter.stopping
            return v2.ModelReadyResponse(ready=is_ready and is_open)

        handlers = {
            "ServerLive": self._probe(
                v2.ServerLiveRequest,
                lambda request: v2.ServerLiveResponse(live=self._health.is_live()),
            ),
            "ServerReady": self._probe(v2.ServerReadyRequest, ready),
            "ModelReady": self._probe(v2.ModelReadyRequest, model_ready),
            "ServerMetadata": self._probe(
                v2.ServerMetadataRequest, lambda request: server_metadata()
            ),
            "ModelMetadata": calls.grpc_handler("ModelMetadata", self._metadata),
            "ModelInfer": calls.grpc_handler("ModelInfer", self._infer),
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _probe(
        self, request_type: type[Any], answer: Callable[[Any], Message]
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def respond(_: object, context: Context) -> bytes | None:
            with self._calls.status_of_errors(context):
                request = await self._calls.read_unlimited(request_type, context)
                return answer(request).SerializeToString()
            return None

        return grpc.stream_unary_rpc_method_handler(respond)

    async def _metadata(self, request: ReceivedRequest) -> bytes:
        def respond() -> bytes:
            message = parse_small(v2.ModelMetadataRequest, request.take(), request.memory)
            request.model_name = message.name
            return describe_signature(message, self._repository).SerializeToString()

        return await self._calls.in_thread(respond)

    def _infer(self, request: ReceivedRequest) -> Awaitable[bytes]:
        outline = v2.ModelInferRequest()

        def read(raw: bytes | bytearray, find: Find, memory: MemoryAccount) -> bytes:
            tensors = read_infer_request(raw, outline, memory)
            check_parameters(outline.parameters, "the request")
            for output in outline.outputs:
                check_parameters(output.parameters, f"output {quote_name(output.name)}")
            spec = model_spec(
                outline.model_name,
                outline.model_version,
                self._repository,
                _signature(outline),
            )
            return predict_request(spec, tensors, (one.name for one in outline.outputs), memory)

        def write(call: PreparedCall, outputs: Outputs, memory: MemoryAccount) -> bytes:
            return encode_infer_response(outline, call, outputs, memory).SerializeToString()

        return self._service.predict(request, read, write)


def read_infer_request(
    raw: bytes | bytearray, outline: v2.ModelInferRequest, memory: MemoryAccount
) -> list[tuple[str, Pieces]]:
    """Reads a ModelInferRequest within limits of its fields.

    Args:
        raw: The serialized request.
        outline: The message that everything but the inputs is read into.
        memory: The account of the request.

    Returns:
        Name and TensorProto, in pieces, of each input.

    Raises:
        StatusError: INVALID_ARGUMENT if it is not consistent, INTERNAL if it is not a message.
        google.protobuf.message.DecodeError: If it is not a message.
    """
    try:
        taken, rest = split_bounded(memoryview(raw), {_INPUTS, _RAW})
        outline.MergeFromString(rest)
        entries, raws = taken.get(_INPUTS, []), taken.get(_RAW, [])
        if raws and len(raws) != len(entries):
            raise invalid_argument(
                f"`raw_input_contents` must hold one element for each input, received {len(raws)} "
                f"for {len(entries)} inputs"
            )
        return [
            _read_input(entry, raws[number] if raws else None, memory)
            for number, entry in enumerate(entries)
        ]
    except TensorError as error:
        raise invalid_argument(f"request parsing error\n{error}") from error
    except UnreadableError as error:
        raise StatusError(grpc.StatusCode.INTERNAL, "") from error


def encode_infer_response(
    outline: v2.ModelInferRequest, call: PreparedCall, outputs: Outputs, memory: MemoryAccount
) -> v2.ModelInferResponse:
    """Returns the response to a request, whose outputs are raw.

    Args:
        outline: The request.
        call: The call that it has become.
        outputs: Its outputs.
        memory: The account of the request.

    Raises:
        StatusError: If an output has no data type of the protocol, or memory is full.
    """
    response = v2.ModelInferResponse(
        model_name=outline.model_name, model_version=str(call.servable.version), id=outline.id
    )
    for name in call.outputs:
        array = outputs[name]
        response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        content = raw_values(array)
        # The values, the message and its bytes.
        memory.add(3 * len(content))
        response.raw_output_contents.append(content)
    return response


def _signature(outline: v2.ModelInferRequest) -> str:
    if SIGNATURE not in outline.parameters:
        return ""
    parameter = outline.parameters[SIGNATURE]
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise invalid_argument(f"The parameter {SIGNATURE} must be a text")
    return parameter.string_param


def _read_input(
    entry: memoryview, raw: memoryview | None, memory: MemoryAccount
) -> tuple[str, Pieces]:
    values, small = split_bounded(entry, {_CONTENTS})
    tensor = v2.ModelInferRequest.InferInputTensor.FromString(small)
    name, contents = tensor.name, values.get(_CONTENTS, [])
    check_parameters(tensor.parameters, f"input {quote_name(name)}")
    if raw is not None:
        if contents:
            raise invalid_argument(
                f"Input {quote_name(name)} must have no `contents` beside `raw_input_contents`"
            )
        return name, raw_pieces(name, tensor.datatype, tensor.shape, raw, memory)
    if len(contents) > 1:
        raise invalid_argument(f"Input {quote_name(name)} must have `contents` once")
    return name, _listed_pieces(tensor, contents[0] if contents else memoryview(b""), memory)


def _listed_pieces(
    tensor: v2.ModelInferRequest.InferInputTensor, contents: memoryview, memory: MemoryAccount
) -> Pieces:
    """Returns the pieces of a TensorProto with the values of a list."""
    name, shape = tensor.name, tensor.shape
    kind, count = wire_type_named(tensor.datatype), count_elements(name, shape)
    field = _LIST_OF.get(kind.name)
    if field is None:
        raise invalid_argument(
            f"Input {quote_name(name)} of {tensor.datatype} must be in `raw_input_contents`"
        )
    lists, rest = split_bounded(contents, set(_LISTS))
    if rest or {_LISTS[number] for number in lists} - {field}:
        raise invalid_argument(
            f"Input {quote_name(name)} must have its values in the list `{field}` alone, packed"
        )
    pieces = next(iter(lists.values()), [])
    if kind.stored is None:
        return string_pieces(name, shape, pieces)
    if kind.stored.kind == "f":
        joined = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
        return raw_pieces(name, tensor.datatype, shape, joined, memory)
    check_count(name, sum(map(count_varints, pieces)), count, "elements")
    memory.add(_LISTED_BYTES * count)
    listed = getattr(v2.InferTensorContents.FromString(bytes(contents)), field)
    is_signed = kind.stored.kind in "ib"
    array = np.fromiter(listed, np.int64 if is_signed else np.uint64, len(listed))
    stored = array.astype(kind.stored)
    if not np.array_equal(stored.astype(array.dtype), array):
        raise invalid_argument(
            f"Input {quote_name(name)} must have values of {tensor.datatype}, received "
            f"{array[stored.astype(array.dtype) != array][0]}"
        )
    return raw_pieces(name, tensor.datatype, shape, memoryview(stored.tobytes()), memory)

"""The services of the server: prediction, model status and health, from bytes to bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

from cnnkit.server.batching import BatchScheduler
from cnnkit.server.calls import CallHandler, Context, Handle, parse_small
from cnnkit.server.health import HealthServicer
from cnnkit.server.limits import ReceivedRequest, ServerLimits
from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.model_calls import model_metadata, model_status, refuse_examples
from cnnkit.server.predict import Outputs, PreparedCall, encode_predict_response, prepare_predict
from cnnkit.server.reload import ReloadService
from cnnkit.server.repository import ModelRepository
from cnnkit.server.unpack import unpack_message
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods

if TYPE_CHECKING:
    from cnnkit.server.servable import SavedModelServable

Find = Callable[[pb.ModelSpec], "SavedModelServable"]
ReadPredict = Callable[[bytes | bytearray, Find, MemoryAccount], bytes | bytearray]
WritePredict = Callable[[PreparedCall, Outputs, MemoryAccount], bytes]


def _serialize(call: PreparedCall, outputs: Outputs, memory: MemoryAccount) -> bytes:
    # The message and its bytes.
    memory.add(2 * sum(array.nbytes for array in outputs.values()))
    return encode_predict_response(call, outputs).SerializeToString()


class PredictionServicer:
    """TensorFlow Serving's PredictionService and ModelService.

    Args:
        calls: Admits and answers the calls.
        repository: The loaded models.
        limits: Limits of the server.
        scheduler: Runs the Predict calls.
        reload: Handles HandleReloadConfigRequest.

    Example:
        >>> service = PredictionServicer(
        ...     calls, repository, limits, scheduler, reload
        ... )  # doctest: +SKIP
        >>> server.add_generic_rpc_handlers(service.handlers())  # doctest: +SKIP
    """

    def __init__(
        self,
        calls: CallHandler,
        repository: ModelRepository,
        limits: ServerLimits,
        scheduler: BatchScheduler,
        reload: ReloadService,
    ) -> None:
        self._calls = calls
        self._repository = repository
        self._limits = limits
        self._scheduler = scheduler
        self._reload = reload

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns one handler for each gRPC service."""
        repository = self._repository
        handlers: dict[str, Handle[bytes]] = {
            methods.PREDICT: self.predict,
            methods.GET_MODEL_METADATA: self._unary(
                pb.GetModelMetadataRequest, lambda request: model_metadata(request, repository)
            ),
            methods.CLASSIFY: self._unary(
                pb.ClassificationRequest,
                lambda request: refuse_examples("classification", [request.model_spec], repository),
            ),
            methods.REGRESS: self._unary(
                pb.RegressionRequest,
                lambda request: refuse_examples("regression", [request.model_spec], repository),
            ),
            methods.MULTI_INFERENCE: self._unary(
                pb.MultiInferenceRequest,
                lambda request: refuse_examples(
                    "classification", [task.model_spec for task in request.tasks], repository
                ),
            ),
            methods.GET_MODEL_STATUS: self._unary(
                pb.GetModelStatusRequest, lambda request: model_status(request, repository)
            ),
            methods.RELOAD_CONFIG: self._reload_config,
        }
        services: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {}
        for path, handle in handlers.items():
            service, _, method = path.removeprefix("/").partition("/")
            authorize = self._reload.authorize if path == methods.RELOAD_CONFIG else None
            services.setdefault(service, {})[method] = self._calls.grpc_handler(
                method, handle, authorize
            )
        return [
            grpc.method_handlers_generic_handler(service, of_service)
            for service, of_service in services.items()
        ]

    def health_handler(self, servicer: HealthServicer) -> grpc.GenericRpcHandler:
        """Returns the handler of the health service, which is answered at the limits too.

        Args:
            servicer: The health service.
        """
        calls = self._calls
        request_type = health_pb2.HealthCheckRequest

        async def check(_: object, context: Context) -> bytes | None:
            with calls.status_of_errors(context):
                response = await servicer.Check(
                    await calls.read_unlimited(request_type, context), context
                )
                return None if response is None else response.SerializeToString()
            return None

        async def watch(_: object, context: Context) -> None:
            with calls.status_of_errors(context):
                await servicer.Watch(await calls.read_unlimited(request_type, context), context)

        serialize = health_pb2.HealthCheckResponse.SerializeToString
        return grpc.method_handlers_generic_handler(
            health.SERVICE_NAME,
            {
                "Check": grpc.stream_unary_rpc_method_handler(check),
                "Watch": grpc.stream_stream_rpc_method_handler(
                    watch, response_serializer=serialize
                ),
            },
        )

    async def predict(
        self,
        request: ReceivedRequest,
        read: ReadPredict = lambda raw, find, memory: raw,
        write: WritePredict = _serialize,
    ) -> bytes:
        """Answers a Predict call in the encoding of an API.

        Args:
            request: The admitted request.
            read: Returns the serialized PredictRequest of an unpacked message. It also gets the
                function that finds the servable of a `model_spec`, and the account of the request.
            write: Returns the response, from the call, its outputs and the account.

        Raises:
            StatusError: If the request is invalid, or its graph fails.
        """
        call = await self._calls.in_thread(self._prepare, request, read)
        outputs = await self._scheduler.run(call)
        return await self._calls.in_thread(write, call, outputs, request.memory)

    def _prepare(self, request: ReceivedRequest, read: ReadPredict) -> PreparedCall:
        limits = self._limits

        def find(spec: pb.ModelSpec) -> SavedModelServable:
            request.model_name = spec.name
            servable = self._repository.find(spec)
            request.called = (servable.name, str(servable.version), "")
            return servable

        raw = unpack_message(request.take(), request.memory, limits.max_request_bytes)
        call = prepare_predict(
            read(raw, find, request.memory),
            find,
            max_tensor_bytes=limits.max_request_bytes,
            max_rows=limits.max_request_rows,
            max_pixels=limits.max_request_pixels,
            add_memory=request.memory.add,
        )
        request.called = (*request.called[:2], call.signature)
        return call

    async def _reload_config(self, request: ReceivedRequest) -> bytes:
        parsed = await self._calls.in_thread(
            parse_small, pb.ReloadConfigRequest, request.take(), request.memory
        )
        return (await self._reload.apply(parsed)).SerializeToString()

    def _unary(
        self, request_type: type[Message], function: Callable[..., Message]
    ) -> Handle[bytes]:
        def respond(request: ReceivedRequest) -> bytes:
            message: Any = parse_small(request_type, request.take(), request.memory)
            request.model_name = message.model_spec.name if hasattr(message, "model_spec") else ""
            return function(message).SerializeToString()

        async def handle(request: ReceivedRequest) -> bytes:
            return await self._calls.in_thread(respond, request)

        return handle

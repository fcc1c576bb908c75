"""The gRPC services of the server: prediction, model status and health, from bytes to bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Executor
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2

from cnnkit.server.batching import BatchScheduler
from cnnkit.server.limits import ConcurrencyLimiter, ServerLimits
from cnnkit.server.predict import Outputs, PreparedCall, encode_predict_response, prepare_predict
from cnnkit.server.repository import ModelRepository
from cnnkit.server.status_error import StatusError, invalid_argument, truncate_details
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods

_LOG = logging.getLogger(__name__)

Reload = Callable[[pb.ReloadConfigRequest], pb.ReloadConfigResponse]
_T = TypeVar("_T")


class PredictionServicer:
    """TensorFlow Serving's PredictionService and ModelService.

    Args:
        repository: The loaded models.
        limits: Limits of the server.
        scheduler: Runs the Predict calls.
        executor: Threads for everything except graphs: they decode and encode messages.
        reload: Handles HandleReloadConfigRequest.

    Example:
        >>> service = PredictionServicer(
        ...     repository, limits, scheduler, executor, reload
        ... )  # doctest: +SKIP
        >>> server.add_generic_rpc_handlers(service.handlers())  # doctest: +SKIP
    """

    def __init__(
        self,
        repository: ModelRepository,
        limits: ServerLimits,
        scheduler: BatchScheduler,
        executor: Executor,
        reload: Reload,
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._scheduler = scheduler
        self._executor = executor
        self._reload = reload
        self._limiter = ConcurrencyLimiter(limits)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns one handler for each gRPC service."""
        repository = self._repository
        calls: dict[str, Callable[[bytes], Awaitable[bytes]]] = {
            methods.PREDICT: self._predict,
            methods.GET_MODEL_METADATA: self._unary(
                pb.GetModelMetadataRequest, lambda request: _metadata(request, repository)
            ),
            methods.CLASSIFY: self._unary(
                pb.ClassificationRequest,
                lambda request: _refuse_examples(
                    "classification", [request.model_spec], repository
                ),
            ),
            methods.REGRESS: self._unary(
                pb.RegressionRequest,
                lambda request: _refuse_examples("regression", [request.model_spec], repository),
            ),
            methods.MULTI_INFERENCE: self._unary(
                pb.MultiInferenceRequest,
                lambda request: _refuse_examples(
                    "classification", [task.model_spec for task in request.tasks], repository
                ),
            ),
            methods.GET_MODEL_STATUS: self._unary(
                pb.GetModelStatusRequest, lambda request: _status(request, repository)
            ),
            methods.RELOAD_CONFIG: self._unary(pb.ReloadConfigRequest, self._reload),
        }
        services: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {}
        for path, handle in calls.items():
            service, _, method = path.removeprefix("/").partition("/")
            services.setdefault(service, {})[method] = self._handler(handle)
        return [
            grpc.method_handlers_generic_handler(service, of_service)
            for service, of_service in services.items()
        ]

    def _handler(
        self, handle: Callable[[bytes], Awaitable[bytes]]
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def respond(
            messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
        ) -> bytes | None:
            code, text = grpc.StatusCode.INTERNAL, ""
            try:
                async with self._limiter.admit(messages) as raw:
                    return await handle(raw)
            except StatusError as error:
                code, text = error.code, error.details
            except DecodeError:
                pass
            except Exception as error:
                # An error of the server itself must not end it.
                _LOG.exception("A request failed")
                text = f"{type(error).__name__}; see the server's log"
            # `context.abort` raises an error that the context keeps, and its traceback keeps the
            # request: a reference cycle, which is collected too rarely in a TensorFlow process.
            context.set_code(code)
            context.set_details(truncate_details(text))
            return None

        # The call is unary. As a stream, its message is not read before the request is admitted.
        return grpc.stream_unary_rpc_method_handler(respond)

    async def _predict(self, raw: bytes) -> bytes:
        call = await self._in_thread(self._prepare, raw)
        outputs = await self._scheduler.run(call)
        return await self._in_thread(_serialize, call, outputs)

    def _prepare(self, raw: bytes) -> PreparedCall:
        return prepare_predict(
            pb.PredictRequest.FromString(raw),
            self._repository.find,
            max_tensor_bytes=self._limits.max_request_bytes,
            max_rows=self._limits.max_request_rows,
        )

    def _unary(
        self, request_type: type[Message], function: Callable[..., Message]
    ) -> Callable[[bytes], Awaitable[bytes]]:
        def respond(raw: bytes) -> bytes:
            return function(request_type.FromString(raw)).SerializeToString()

        async def handle(raw: bytes) -> bytes:
            return await self._in_thread(respond, raw)

        return handle

    async def _in_thread(self, function: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _serialize(call: PreparedCall, outputs: Outputs) -> bytes:
    return encode_predict_response(call, outputs).SerializeToString()


def _metadata(
    request: pb.GetModelMetadataRequest, repository: ModelRepository
) -> pb.GetModelMetadataResponse:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != methods.SIGNATURE_DEF:
            raise invalid_argument(f"Metadata field {field} is not supported")
    servable = repository.find(request.model_spec)
    response = pb.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    packed = response.metadata[methods.SIGNATURE_DEF]
    packed.type_url = methods.SIGNATURE_DEF_TYPE_URL
    packed.value = servable.definitions.SerializeToString(deterministic=True)
    return response


def _status(
    request: pb.GetModelStatusRequest, repository: ModelRepository
) -> pb.GetModelStatusResponse:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    response = pb.GetModelStatusResponse()
    for version, known in repository.version_states(request.model_spec).items():
        status = response.model_version_status.add(version=version, state=known.state)
        # TensorFlow Serving sends an empty status for a version without an error.
        status.status.SetInParent()
        status.status.error_code = known.code
        status.status.error_message = known.details
    return response


def _refuse_examples(
    kind: str, specs: Iterable[pb.ModelSpec], repository: ModelRepository
) -> Message:
    """Refuses a call that sends tf.Example records, which no image model takes."""
    for spec in specs:
        definitions = repository.find(spec).definitions.signature_def
        name = spec.signature_name or methods.DEFAULT_SIGNATURE
        if name not in definitions:
            raise invalid_argument(f"No signature was found with the name: {name}")
        raise invalid_argument(f"No {kind} inputs found in SignatureDef: \n{definitions[name]}")
    raise invalid_argument("Missing ModelSpec")


class HealthServicer(health.aio.HealthServicer):
    """The standard health service. It reports the server; GetModelStatus reports the models."""

    SERVICES = ("PredictionService", "ModelService")

    async def set_serving(self) -> None:
        """Sets the status of every service to SERVING."""
        for service in self.SERVICES:
            await self.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse | None:
        """Returns the status of a service; NOT_FOUND for an unknown one."""
        if request.service not in ("", *self.SERVICES):
            # Not `abort`: see PredictionServicer.
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("service name unknown")
            return None
        return await super().Check(request, context)

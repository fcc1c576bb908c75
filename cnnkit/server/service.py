"""The gRPC services of the server: prediction, model status and health, from bytes to bytes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2

from cnnkit.server.batching import BatchScheduler
from cnnkit.server.client_certificate import ClientCertificates
from cnnkit.server.limits import ConcurrencyLimiter, ReceivedRequest, ServerLimits
from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.metrics import NO_METRICS, NoMetrics
from cnnkit.server.predict import Outputs, PreparedCall, encode_predict_response, prepare_predict
from cnnkit.server.reload import ReloadService
from cnnkit.server.repository import ModelRepository
from cnnkit.server.status_error import (
    STOPPED,
    StatusError,
    invalid_argument,
    quote_name,
    truncate_details,
)
from cnnkit.server.unpack import unpack_message
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods

if TYPE_CHECKING:
    from cnnkit.server.servable import SavedModelServable

_LOG = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[bytes, bytes]
_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)

# Protobuf turns two bytes of an empty message in a list into fifty or more. The largest request
# without tensors is a configuration of many models.
MAX_SMALL_REQUEST_BYTES = 2**20


class PredictionServicer:
    """TensorFlow Serving's PredictionService and ModelService.

    Args:
        repository: The loaded models.
        limits: Limits of the server.
        scheduler: Runs the Predict calls.
        executor: Threads for everything except graphs: they decode and encode messages.
        reload: Handles HandleReloadConfigRequest.
        clients: The clients that are answered, if they have certificates.
        metrics: Counts the requests.

    Attributes:
        limiter: Counts the requests; ends them when the server stops.

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
        reload: ReloadService,
        clients: ClientCertificates | None = None,
        metrics: NoMetrics = NO_METRICS,
    ) -> None:
        self._metrics = metrics
        self._repository = repository
        self._limits = limits
        self._scheduler = scheduler
        self._executor = executor
        self._reload = reload
        self._clients = clients or ClientCertificates()
        self.limiter = ConcurrencyLimiter(limits)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns one handler for each gRPC service."""
        repository = self._repository
        calls: dict[str, Callable[[ReceivedRequest], Awaitable[bytes]]] = {
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
            methods.RELOAD_CONFIG: self._reload_config,
        }
        services: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {}
        for path, handle in calls.items():
            service, _, method = path.removeprefix("/").partition("/")
            authorize = self._reload.authorize if path == methods.RELOAD_CONFIG else None
            services.setdefault(service, {})[method] = self._handler(method, handle, authorize)
        return [
            grpc.method_handlers_generic_handler(service, of_service)
            for service, of_service in services.items()
        ]

    def _handler(
        self,
        method: str,
        handle: Callable[[ReceivedRequest], Awaitable[bytes]],
        authorize: Callable[[_Context], None] | None,
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def respond(_: object, context: _Context) -> bytes | None:
            begun, called, code = time.monotonic(), ("", "", ""), "CANCELLED"
            try:
                with self._metrics.open_request(), self._status_of_errors(context):
                    self._clients.check(context.auth_context())
                    if authorize is not None:
                        authorize(context)
                    async with self.limiter.admit(context.peer(), context.read) as request:
                        try:
                            answer = await handle(request)
                        finally:
                            called = request.called
                    code = "OK"
                    return answer
                code = context.code().name
                return None
            finally:
                seconds = time.monotonic() - begun
                self._metrics.finish_request(method, *called, code, seconds)

        # The call is unary. As a stream, its message is not read before the request is admitted.
        return grpc.stream_unary_rpc_method_handler(respond)

    def health_handler(self, servicer: HealthServicer) -> grpc.GenericRpcHandler:
        """Returns the handler of the health service, which is answered at the limits too.

        Args:
            servicer: The health service.
        """

        async def read(
            context: grpc.aio.ServicerContext[Any, Any],
        ) -> health_pb2.HealthCheckRequest:
            self._clients.check(context.auth_context())
            raw = await self.limiter.receive(context.peer(), context.read)
            with self.limiter.open_memory() as memory:
                return _parse(health_pb2.HealthCheckRequest, raw, memory)

        async def check(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> bytes | None:
            with self._status_of_errors(context):
                response = await servicer.Check(await read(context), context)
                return None if response is None else response.SerializeToString()
            return None

        async def watch(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            with self._status_of_errors(context):
                await servicer.Watch(await read(context), context)

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

    @contextlib.contextmanager
    def _status_of_errors(self, context: grpc.aio.ServicerContext[Any, Any]) -> Iterator[None]:
        """Sets the status of a call whose block raises an error."""
        code, text = grpc.StatusCode.INTERNAL, ""
        try:
            yield
            return
        except StatusError as error:
            code, text = error.code, error.details
        except DecodeError:
            pass
        except asyncio.CancelledError:
            if not self.limiter.ended:
                # The client is gone.
                raise
            # Not the CANCELLED of gRPC, with which clients repeat a call that never began.
            code, text = grpc.StatusCode.UNAVAILABLE, STOPPED
        except Exception as error:
            # An error of the server itself must not end it.
            _LOG.exception("A request failed")
            text = f"{type(error).__name__}; see the server's log"
        # `context.abort` raises an error that the context keeps, and its traceback keeps the
        # request: a reference cycle, which is collected too rarely in a TensorFlow process.
        context.set_code(code)
        context.set_details(truncate_details(text))

    async def _predict(self, request: ReceivedRequest) -> bytes:
        call = await self._in_thread(self._prepare, request)
        outputs = await self._scheduler.run(call)
        return await self._in_thread(_serialize, call, outputs, request.memory)

    def _prepare(self, request: ReceivedRequest) -> PreparedCall:
        limits = self._limits

        def find(spec: pb.ModelSpec) -> SavedModelServable:
            servable = self._repository.find(spec)
            request.called = (servable.name, str(servable.version), "")
            return servable

        call = prepare_predict(
            unpack_message(request.take(), request.memory, limits.max_request_bytes),
            find,
            max_tensor_bytes=limits.max_request_bytes,
            max_rows=limits.max_request_rows,
            max_pixels=limits.max_request_pixels,
            add_memory=request.memory.add,
        )
        request.called = (*request.called[:2], call.signature)
        return call

    async def _reload_config(self, request: ReceivedRequest) -> bytes:
        parsed = await self._in_thread(
            _parse, pb.ReloadConfigRequest, request.take(), request.memory
        )
        return (await self._reload.apply(parsed)).SerializeToString()

    def _unary(
        self, request_type: type[Message], function: Callable[..., Message]
    ) -> Callable[[ReceivedRequest], Awaitable[bytes]]:
        def respond(request: ReceivedRequest) -> bytes:
            return function(
                _parse(request_type, request.take(), request.memory)
            ).SerializeToString()

        async def handle(request: ReceivedRequest) -> bytes:
            return await self._in_thread(respond, request)

        return handle

    async def _in_thread(self, function: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _parse(request_type: type[_M], raw: bytes, memory: MemoryAccount) -> _M:
    """Parses a request without tensors."""
    unpacked = unpack_message(raw, memory, MAX_SMALL_REQUEST_BYTES)
    if len(unpacked) > MAX_SMALL_REQUEST_BYTES:
        raise invalid_argument(
            f"The request has {len(unpacked)} bytes, and may have {MAX_SMALL_REQUEST_BYTES}"
        )
    return request_type.FromString(bytes(unpacked))


def _serialize(call: PreparedCall, outputs: Outputs, memory: MemoryAccount) -> bytes:
    # The message and its bytes.
    memory.add(2 * sum(array.nbytes for array in outputs.values()))
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
            raise invalid_argument(f"Metadata field {quote_name(field)} is not supported")
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
            raise invalid_argument(f"No signature was found with the name: {quote_name(name)}")
        raise invalid_argument(f"No {kind} inputs found in SignatureDef: \n{definitions[name]}")
    raise invalid_argument("Missing ModelSpec")


class HealthServicer(health.aio.HealthServicer):
    """The standard health service, of the server and of each model by its name.

    A model is SERVING while one of its versions can be called; GetModelStatus tells more.

    Args:
        repository: The models.
    """

    SERVICES = ("PredictionService", "ModelService")

    def __init__(self, repository: ModelRepository) -> None:
        super().__init__()
        self._repository = repository
        self._models: set[str] = set()

    async def set_serving(self) -> None:
        """Sets the status of every service to SERVING, and that of each model."""
        for service in self.SERVICES:
            await self.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self.update()

    async def update(self) -> None:
        """Sets the status of each model, which those who watch it are told."""
        status = health_pb2.HealthCheckResponse
        names = {config.name for config in self._repository.configs} - {*self.SERVICES, ""}
        for name in names:
            is_served = bool(self._repository.versions(name))
            await self.set(name, status.SERVING if is_served else status.NOT_SERVING)
        for name in self._models - names:
            await self.set(name, status.SERVICE_UNKNOWN)
        self._models = names

    async def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse | None:
        """Returns the status of a service or of a model; NOT_FOUND for an unknown one."""
        await self.update()
        if request.service not in {"", *self.SERVICES, *self._models}:
            # Not `abort`: see PredictionServicer.
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("service name unknown")
            return None
        return await super().Check(request, context)

"""The services of the server: prediction, model status and health, from bytes to bytes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2

from cnnkit.server.batching import BatchScheduler
from cnnkit.server.client_certificate import ClientCertificates
from cnnkit.server.health import HealthServicer
from cnnkit.server.incoming import ReadMessage
from cnnkit.server.limits import ConcurrencyLimiter, ReceivedRequest, ServerLimits
from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.metrics import NO_METRICS, NoMetrics
from cnnkit.server.model_calls import model_metadata, model_status, refuse_examples
from cnnkit.server.predict import Outputs, PreparedCall, encode_predict_response, prepare_predict
from cnnkit.server.reload import ReloadService
from cnnkit.server.repository import ModelRepository
from cnnkit.server.status_error import (
    STOPPED,
    StatusError,
    invalid_argument,
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
Find = Callable[[pb.ModelSpec], "SavedModelServable"]
ReadPredict = Callable[[bytes | bytearray, Find, MemoryAccount], bytes | bytearray]
WritePredict = Callable[[PreparedCall, Outputs, MemoryAccount], bytes]

# Protobuf turns two bytes of an empty message in a list into fifty or more. The largest request
# without tensors is a configuration of many models.
MAX_SMALL_REQUEST_BYTES = 2**20


@dataclass(frozen=True)
class Caller:
    """The client of one call.

    Attributes:
        peer: Its address, as gRPC names it: "ipv4:10.0.0.7:41234".
        identity: What is known of its certificate: `ServicerContext.auth_context()`.
        read: Receives the message of the call.
        authorize: Raises a `StatusError` if the client may not make the call; None if all may.
    """

    peer: str
    identity: Mapping[str, Iterable[bytes]]
    read: ReadMessage
    authorize: Callable[[], None] | None = None


def _serialize(call: PreparedCall, outputs: Outputs, memory: MemoryAccount) -> bytes:
    # The message and its bytes.
    memory.add(2 * sum(array.nbytes for array in outputs.values()))
    return encode_predict_response(call, outputs).SerializeToString()


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
        self.clients = clients or ClientCertificates()
        self.limiter = ConcurrencyLimiter(limits)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns one handler for each gRPC service."""
        repository = self._repository
        calls: dict[str, Callable[[ReceivedRequest], Awaitable[bytes]]] = {
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
            caller = Caller(
                context.peer(),
                context.auth_context(),
                context.read,
                None if authorize is None else functools.partial(authorize, context),
            )
            with self._status_of_errors(context):
                return await self.call(method, caller, handle)
            return None

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
            self.clients.check(context.auth_context())
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

    async def call(
        self, method: str, caller: Caller, handle: Callable[[ReceivedRequest], Awaitable[_T]]
    ) -> _T:
        """Answers one call of either API: checks its client, admits, counts and handles it.

        Args:
            method: Name of the method, for the metrics.
            caller: The client.
            handle: Returns the answer to a request.

        Raises:
            StatusError: Whatever goes wrong.
        """
        begun, called, code = time.monotonic(), ("", "", ""), "CANCELLED"
        try:
            with self._metrics.open_request(), self.errors_as_status():
                self.clients.check(caller.identity)
                if caller.authorize is not None:
                    caller.authorize()
                async with self.limiter.admit(caller.peer, caller.read) as request:
                    try:
                        answer = await handle(request)
                    finally:
                        called = request.called
                code = "OK"
                return answer
        except StatusError as error:
            code = error.code.name
            raise
        finally:
            self._metrics.finish_request(method, *called, code, time.monotonic() - begun)

    @contextlib.contextmanager
    def errors_as_status(self) -> Iterator[None]:
        """Raises a `StatusError` for any error of the block."""
        code, text = grpc.StatusCode.INTERNAL, ""
        try:
            yield
            return
        except StatusError:
            raise
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
        raise StatusError(code, text)

    @contextlib.contextmanager
    def _status_of_errors(self, context: grpc.aio.ServicerContext[Any, Any]) -> Iterator[None]:
        """Sets the status of a call whose block raises an error."""
        try:
            with self.errors_as_status():
                yield
        except StatusError as error:
            # `context.abort` raises an error that the context keeps, and its traceback keeps the
            # request: a reference cycle, which is collected too rarely in a TensorFlow process.
            context.set_code(error.code)
            context.set_details(truncate_details(error.details))

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
        call = await self.in_thread(self._prepare, request, read)
        outputs = await self._scheduler.run(call)
        return await self.in_thread(write, call, outputs, request.memory)

    def _prepare(self, request: ReceivedRequest, read: ReadPredict) -> PreparedCall:
        limits = self._limits

        def find(spec: pb.ModelSpec) -> SavedModelServable:
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
        parsed = await self.in_thread(
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
            return await self.in_thread(respond, request)

        return handle

    async def in_thread(self, function: Callable[..., _T], *args: object) -> _T:
        """Runs a function in a thread for messages, and returns its result."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _parse(request_type: type[_M], raw: bytes, memory: MemoryAccount) -> _M:
    """Parses a request without tensors."""
    unpacked = unpack_message(raw, memory, MAX_SMALL_REQUEST_BYTES)
    if len(unpacked) > MAX_SMALL_REQUEST_BYTES:
        raise invalid_argument(
            f"The request has {len(unpacked)} bytes, and may have {MAX_SMALL_REQUEST_BYTES}"
        )
    return request_type.FromString(bytes(unpacked))

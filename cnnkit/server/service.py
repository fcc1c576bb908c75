"""The calls that the server answers, from bytes to bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Executor

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2

from cnnkit.server.batching import BatchScheduler
from cnnkit.server.limits import ConcurrencyLimiter, ServerLimits
from cnnkit.server.predict import Outputs, PreparedCall, encode_predict_response, prepare_predict
from cnnkit.server.repository import ModelRepository
from cnnkit.server.status_error import StatusError, invalid_argument, shorten
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods

_LOG = logging.getLogger(__name__)

Reload = Callable[[pb.ReloadConfigRequest], pb.ReloadConfigResponse]


class PredictionServicer:
    """Both services of TensorFlow Serving.

    Args:
        repository: The models there are.
        limits: How much is taken on at once.
        runner: Runs the calls.
        executor: Where everything but graphs runs: messages are read and written there.
        reload: Answers HandleReloadConfigRequest.

    Example:
        >>> service = PredictionServicer(repository, limits, runner, executor, reload)  # doctest: +SKIP
        >>> server.add_generic_rpc_handlers(service.handlers())  # doctest: +SKIP
    """

    def __init__(
        self,
        repository: ModelRepository,
        limits: ServerLimits,
        runner: BatchScheduler,
        executor: Executor,
        reload: Reload,
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._runner = runner
        self._executor = executor
        self._reload = reload
        self._admission = ConcurrencyLimiter(limits)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns the handlers, by gRPC's services."""
        repository = self._repository
        calls: dict[str, Callable[[bytes], Awaitable[bytes]]] = {
            methods.PREDICT: self._predict,
            methods.GET_MODEL_METADATA: self._quick(
                pb.GetModelMetadataRequest, lambda request: _metadata(request, repository)
            ),
            methods.CLASSIFY: self._quick(
                pb.ClassificationRequest,
                lambda request: _no_examples("classification", [request.model_spec], repository),
            ),
            methods.REGRESS: self._quick(
                pb.RegressionRequest,
                lambda request: _no_examples("regression", [request.model_spec], repository),
            ),
            methods.MULTI_INFERENCE: self._quick(
                pb.MultiInferenceRequest,
                lambda request: _no_examples(
                    "classification", [task.model_spec for task in request.tasks], repository
                ),
            ),
            methods.GET_MODEL_STATUS: self._quick(
                pb.GetModelStatusRequest, lambda request: _status(request, repository)
            ),
            methods.RELOAD_CONFIG: self._quick(pb.ReloadConfigRequest, self._reload),
        }
        services: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
        for path, handle in calls.items():
            service, _, method = path.removeprefix("/").partition("/")
            services.setdefault(service, {})[method] = self._handler(handle)
        return [
            grpc.method_handlers_generic_handler(service, of_service)
            for service, of_service in services.items()
        ]

    def _handler(self, handle: Callable[[bytes], Awaitable[bytes]]) -> grpc.RpcMethodHandler:
        async def respond(
            messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext
        ) -> bytes | None:
            code, text = grpc.StatusCode.INTERNAL, ""
            try:
                async with self._admission.request(messages) as raw:
                    return await handle(raw)
            except StatusError as refusal:
                code, text = refusal.code, refusal.text
            except DecodeError:
                pass
            except Exception as error:
                # A fault of the server's own; the next request must find it alive.
                _LOG.exception("A request failed")
                text = f"{type(error).__name__}; the server's log says more"
            # `context.abort` would raise an error that the context keeps, and its traceback keeps
            # the request: a cycle, which a process with TensorFlow in it collects too rarely.
            context.set_code(code)
            context.set_details(shorten(text))
            return None

        # One message comes, as for every unary call; taken as a stream, it is not read before
        # the request is let in.
        return grpc.stream_unary_rpc_method_handler(respond)

    async def _predict(self, raw: bytes) -> bytes:
        call = await self._aside(self._prepared, raw)
        outputs = await self._runner.run(call)
        return await self._aside(_packed, call, outputs)

    def _prepared(self, raw: bytes) -> PreparedCall:
        return prepare_predict(
            pb.PredictRequest.FromString(raw),
            self._repository.find,
            largest=self._limits.request_bytes,
            most_rows=self._limits.batch_rows,
        )

    def _quick(
        self, request_type: type[Message], reply: Callable[..., Message]
    ) -> Callable[[bytes], Awaitable[bytes]]:
        def whole(raw: bytes) -> bytes:
            return reply(request_type.FromString(raw)).SerializeToString()

        async def handle(raw: bytes) -> bytes:
            return await self._aside(whole, raw)

        return handle

    async def _aside(self, function, *args):
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _packed(call: PreparedCall, outputs: Outputs) -> bytes:
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
    for version, known in repository.select(request.model_spec).items():
        status = response.model_version_status.add(version=version, state=known.state)
        # A real server sends the empty status of a version that is well.
        status.status.SetInParent()
        status.status.error_code = known.code
        status.status.error_message = known.text
    return response


def _no_examples(kind: str, specs: Iterable[pb.ModelSpec], repository: ModelRepository) -> Message:
    """Refuses the calls that send tf.Example records: no model of images takes them."""
    for spec in specs:
        definitions = repository.find(spec).definitions.signature_def
        name = spec.signature_name or methods.DEFAULT_SIGNATURE
        if name not in definitions:
            raise invalid_argument(f"No signature was found with the name: {name}")
        raise invalid_argument(f"No {kind} inputs found in SignatureDef: \n{definitions[name]}")
    raise invalid_argument("Missing ModelSpec")


SERVICES = ("PredictionService", "ModelService")


class HealthServicer(health.aio.HealthServicer):
    """Says that the server is up; whether a model is, GetModelStatus says."""

    async def begin(self) -> None:
        """Says so from now on."""
        for service in SERVICES:
            await self.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse | None:
        """Answers whether a service is up; NOT_FOUND for one that there is not."""
        if request.service not in ("", *SERVICES):
            # Not `abort`, which leaves a cycle of objects behind: see cnnkit.server.service.
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("service name unknown")
            return None
        return await super().Check(request, context)

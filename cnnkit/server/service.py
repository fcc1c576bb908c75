"""The calls that the server answers, from bytes to bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2

from cnnkit.server.predict import predict
from cnnkit.server.refusal import Refusal, invalid
from cnnkit.server.repository import Repository
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods

_LOG = logging.getLogger(__name__)

# The text travels in a header, and gRPC drops headers of more than 8 KiB.
_LONGEST_TEXT = 4000


def handlers(repository: Repository) -> list[grpc.GenericRpcHandler]:
    """Returns the handlers of both services of TensorFlow Serving.

    Args:
        repository: The models there are.

    Example:
        >>> server.add_generic_rpc_handlers(handlers(repository))  # doctest: +SKIP
    """
    calls: dict[str, tuple[type[Message], Callable[..., Message]]] = {
        methods.PREDICT: (pb.PredictRequest, predict),
        methods.GET_MODEL_METADATA: (pb.GetModelMetadataRequest, _metadata),
        methods.CLASSIFY: (pb.ClassificationRequest, _classify),
        methods.REGRESS: (pb.RegressionRequest, _regress),
        methods.MULTI_INFERENCE: (pb.MultiInferenceRequest, _multi_inference),
        methods.GET_MODEL_STATUS: (pb.GetModelStatusRequest, _status),
        methods.RELOAD_CONFIG: (pb.ReloadConfigRequest, _reload),
    }
    services: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
    for path, (request, answer) in calls.items():
        service, _, method = path.removeprefix("/").partition("/")
        services.setdefault(service, {})[method] = _handler(request, answer, repository)
    return [
        grpc.method_handlers_generic_handler(service, of_service)
        for service, of_service in services.items()
    ]


class Health(health.HealthServicer):
    """The standard health service, with the text of a model server for an unknown name."""

    def __init__(self) -> None:
        super().__init__()
        for service in ("PredictionService", "ModelService"):
            self.set(service, health_pb2.HealthCheckResponse.SERVING)

    def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answers whether a service is up; NOT_FOUND for one that there is not."""
        response = super().Check(request, context)
        if context.code() is grpc.StatusCode.NOT_FOUND:
            context.set_details("service name unknown")
        return response


def _handler(
    request_type: type[Message],
    answer: Callable[..., Message],
    repository: Repository,
) -> grpc.RpcMethodHandler:
    def handle(raw: bytes, context: grpc.ServicerContext) -> bytes:
        code, text = grpc.StatusCode.INTERNAL, ""
        try:
            return answer(request_type.FromString(raw), repository).SerializeToString()
        except Refusal as refusal:
            code, text = refusal.code, refusal.text
        except DecodeError:
            pass
        except Exception as error:
            # A fault of the server's own; the next request must find it alive.
            _LOG.exception("A request failed")
            text = f"{type(error).__name__}: {error}"
        return context.abort(code, text[:_LONGEST_TEXT])

    return grpc.unary_unary_rpc_method_handler(handle)


def _metadata(
    request: pb.GetModelMetadataRequest, repository: Repository
) -> pb.GetModelMetadataResponse:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != methods.SIGNATURE_DEF:
            raise invalid(f"Metadata field {field} is not supported")
    servable = repository.find(request.model_spec)
    response = pb.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    packed = response.metadata[methods.SIGNATURE_DEF]
    packed.type_url = methods.SIGNATURE_DEF_TYPE_URL
    packed.value = servable.definitions.SerializeToString(deterministic=True)
    return response


def _status(request: pb.GetModelStatusRequest, repository: Repository) -> pb.GetModelStatusResponse:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    response = pb.GetModelStatusResponse()
    for version in repository.select(request.model_spec):
        status = response.model_version_status.add(
            version=version, state=pb.ModelVersionStatus.AVAILABLE
        )
        # A real server sends the empty status of a version that is well.
        status.status.SetInParent()
    return response


def _classify(request: pb.ClassificationRequest, repository: Repository) -> Message:
    raise _no_examples("classification", [request.model_spec], repository)


def _regress(request: pb.RegressionRequest, repository: Repository) -> Message:
    raise _no_examples("regression", [request.model_spec], repository)


def _multi_inference(request: pb.MultiInferenceRequest, repository: Repository) -> Message:
    raise _no_examples("classification", [task.model_spec for task in request.tasks], repository)


def _no_examples(kind: str, specs: Iterable[pb.ModelSpec], repository: Repository) -> Refusal:
    """Refuses the calls that send tf.Example records: no model of images takes them."""
    for spec in specs:
        definitions = repository.find(spec).definitions.signature_def
        name = spec.signature_name or methods.DEFAULT_SIGNATURE
        if name not in definitions:
            return invalid(f"No signature was found with the name: {name}")
        return invalid(f"No {kind} inputs found in SignatureDef: \n{definitions[name]}")
    return invalid("Missing ModelSpec")


def _reload(request: pb.ReloadConfigRequest, repository: Repository) -> pb.ReloadConfigResponse:
    if request.config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    raise Refusal(
        grpc.StatusCode.UNIMPLEMENTED,
        "This server keeps the models it was started with; start it again with other ones",
    )

"""Answers to the calls about a model that run no graph: its metadata, its status, its examples."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from cnnkit.server.repository import ModelRepository
from cnnkit.server.status_error import invalid_argument, quote_name
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods


def model_metadata(
    request: pb.GetModelMetadataRequest, repository: ModelRepository
) -> pb.GetModelMetadataResponse:
    """Returns the signatures of a version, by default the newest one.

    Raises:
        StatusError: If there is no such version, or another field than its signatures is asked for.
    """
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


def model_status(
    request: pb.GetModelStatusRequest, repository: ModelRepository
) -> pb.GetModelStatusResponse:
    """Returns the states of the versions of a model.

    Raises:
        StatusError: If there is no such model or version.
    """
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


def refuse_examples(
    kind: str, specs: Iterable[pb.ModelSpec], repository: ModelRepository
) -> Message:
    """Refuses a call that sends tf.Example records, which no image model takes.

    Raises:
        StatusError: Always.
    """
    for spec in specs:
        definitions = repository.find(spec).definitions.signature_def
        name = spec.signature_name or methods.DEFAULT_SIGNATURE
        if name not in definitions:
            raise invalid_argument(f"No signature was found with the name: {quote_name(name)}")
        raise invalid_argument(f"No {kind} inputs found in SignatureDef: \n{definitions[name]}")
    raise invalid_argument("Missing ModelSpec")

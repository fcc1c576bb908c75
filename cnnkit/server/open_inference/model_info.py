"""What the protocol tells of the server and its models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import grpc

from cnnkit._version import __version__
from cnnkit.server.open_inference.requests import datatype_name, model_spec
from cnnkit.server.repository import ModelRepository
from cnnkit.server.status_error import StatusError, quote_name
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire import open_inference_pb2 as v2

if TYPE_CHECKING:
    from cnnkit.server.servable import SavedModelServable

BINARY_TENSORS = "binary_tensor_data"
# The protocol's name of the format.
_PLATFORM = "tensorflow_savedmodel"


def server_metadata() -> v2.ServerMetadataResponse:
    """Returns the name and version of the server, and the protocol's extensions that it has."""
    return v2.ServerMetadataResponse(
        name="cnnkit", version=__version__, extensions=[BINARY_TENSORS]
    )


def find_signature(
    name: str, version: str, repository: ModelRepository
) -> tuple[SavedModelServable, str, pb.SignatureDef]:
    """Returns the servable that a name and a version stand for, and its signature.

    Args:
        name: NAME or NAME:SIGNATURE.
        version: A number or a label; empty for the newest version.
        repository: The models.

    Raises:
        StatusError: If there is no such model, version or signature.
    """
    spec = model_spec(name, version, repository)
    servable = repository.find(spec)
    signature = spec.signature_name or methods.DEFAULT_SIGNATURE
    known = servable.definitions.signature_def
    if signature not in known:
        raise StatusError(
            grpc.StatusCode.NOT_FOUND,
            f"Model {quote_name(spec.name)} has no signature {quote_name(signature)}; name one of "
            + ", ".join(f"{spec.name}:{one}" for one in sorted(known) if one[:2] != "__"),
        )
    return servable, signature, known[signature]


def describe_signature(
    request: v2.ModelMetadataRequest, repository: ModelRepository
) -> v2.ModelMetadataResponse:
    """Returns the inputs and outputs of a signature, and the versions of the model.

    Raises:
        StatusError: If there is no such model, version or signature, or the protocol has no data
            type for one of its tensors.
    """
    servable, _, definition = find_signature(request.name, request.version, repository)
    return v2.ModelMetadataResponse(
        name=request.name,
        versions=map(str, sorted(repository.versions(servable.name))),
        platform=_PLATFORM,
        inputs=_tensors(definition.inputs),
        outputs=_tensors(definition.outputs),
    )


def is_model_ready(name: str, version: str, repository: ModelRepository) -> bool:
    """Returns True if a signature of a model can be called.

    Args:
        name: See `find_signature`.
        version: See `find_signature`.
        repository: The models.
    """
    try:
        find_signature(name, version, repository)
    except StatusError:
        return False
    return True


def _tensors(
    infos: Mapping[str, pb.TensorInfo],
) -> Iterable[v2.ModelMetadataResponse.TensorMetadata]:
    for name, info in sorted(infos.items()):
        sizes = [dim.size for dim in info.tensor_shape.dim]
        yield v2.ModelMetadataResponse.TensorMetadata(
            name=name,
            datatype=datatype_name(info.dtype),
            # The protocol has no word for a shape of any rank.
            shape=[-1] if info.tensor_shape.unknown_rank else sizes,
        )

"""Metadata of served models: signatures and the states of versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import type_name

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

# TensorFlow lists the initializer of a SavedModel among its signatures. It cannot be called.
_INITIALIZER = "__saved_model_init_op"


@dataclass(frozen=True)
class TensorSpec:
    """Dtype and shape of one input or output of a signature.

    Attributes:
        dtype: "float32", "string", ...
        shape: The sizes, with None for a free size; or None if the rank is unknown.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of any shape"
        sizes = ", ".join("n" if size is None else str(size) for size in self.shape)
        return f"{self.dtype} ({sizes}{',' if len(self.shape) == 1 else ''})"


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of one signature of a model.

    Attributes:
        inputs: Inputs by name.
        outputs: Outputs by name.
    """

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version of a model.

    Attributes:
        version: Version number.
        state: "START", "LOADING", "AVAILABLE", "UNLOADING", "END" or "UNKNOWN".
        code: "OK", or the status code of an error, such as "NOT_FOUND".
        message: Text of the error.
    """

    version: int
    state: str
    code: str
    message: str


def signatures(definitions: pb.SignatureDefMap) -> dict[str, Signature]:
    """Return the signatures of a model by name, sorted.

    Example:
        >>> signatures(pb.SignatureDefMap())
        {}
    """
    return {
        name: Signature(_specs(definition.inputs), _specs(definition.outputs))
        for name, definition in sorted(definitions.signature_def.items())
        if name != _INITIALIZER
    }


def version_statuses(response: pb.GetModelStatusResponse) -> list[VersionStatus]:
    """Return the states of a model's versions, the newest first.

    Example:
        >>> version_statuses(pb.GetModelStatusResponse())
        []
    """
    listed = [
        VersionStatus(
            version=status.version,
            state=_name(pb.ModelVersionStatus.State, status.state),
            code=_name(pb.Code, status.status.error_code),
            message=status.status.error_message,
        )
        for status in response.model_version_status
    ]
    return sorted(listed, key=lambda status: -status.version)


def _specs(infos: Mapping[str, pb.TensorInfo]) -> dict[str, TensorSpec]:
    return {name: _spec(info) for name, info in sorted(infos.items())}


def _spec(info: pb.TensorInfo) -> TensorSpec:
    if info.tensor_shape.unknown_rank:
        return TensorSpec(type_name(info.dtype), None)
    sizes = (dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(type_name(info.dtype), tuple(None if size < 0 else size for size in sizes))


def _name(enum: EnumTypeWrapper, number: int) -> str:
    # A newer server may have states that this client does not know.
    return enum.Name(number) if number in enum.values() else str(number)

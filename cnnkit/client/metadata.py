"""What a server says about its models: signatures and the states of versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import type_name

# The entry that TensorFlow keeps for starting a model; nobody can call it.
_INITIALIZER = "__saved_model_init_op"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature.

    Attributes:
        dtype: "float32", "string", ...
        shape: Its sizes, None where any size goes; None alone where even the rank is open.
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
    """One way of calling a model: named inputs to named outputs."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass(frozen=True)
class VersionStatus:
    """Where one version of a model is in its life.

    Attributes:
        version: Its number.
        state: "START", "LOADING", "AVAILABLE", "UNLOADING", "END" or "UNKNOWN".
        code: "OK", or the name of what went wrong, such as "NOT_FOUND".
        message: The server's words about that.
    """

    version: int
    state: str
    code: str
    message: str


def signatures(definitions: pb.SignatureDefMap) -> dict[str, Signature]:
    """Returns the signatures of a model by their names, in alphabetical order.

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
    """Returns the versions of a model, the newest first.

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
    # A newer server may know a state that this client does not.
    return enum.Name(number) if number in enum.values() else str(number)

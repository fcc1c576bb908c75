"""Metadata of served models: signatures and the states of versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import TensorError, type_name

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

# TensorFlow lists the initializer of a SavedModel among its signatures. It cannot be called.
_INITIALIZER = "__saved_model_init_op"
# Signatures with their tensors, or versions, of one model, at most.
_MAX_ENTRIES = 10_000
_SHOWN_STATES = 10


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


def signatures(raw: bytes) -> dict[str, Signature]:
    """Parse a `SignatureDefMap`; return the signatures of a model by name, sorted.

    Raises:
        TensorError: There are more than 10,000 signatures, inputs and outputs.
        google.protobuf.message.DecodeError: The bytes are not a valid message.

    Example:
        >>> signatures(b"")
        {}
    """
    definitions = pb.SignatureDefMap.FromString(raw)
    known = definitions.signature_def.values()
    count = sum(1 + len(one.inputs) + len(one.outputs) for one in known)
    _check_count(count, "signatures, inputs and outputs")
    return {
        name: Signature(_specs(definition.inputs), _specs(definition.outputs))
        for name, definition in sorted(definitions.signature_def.items())
        if name != _INITIALIZER
    }


def version_statuses(raw: bytes) -> list[VersionStatus]:
    """Parse a `GetModelStatusResponse`; return the states of the versions, the newest first.

    Raises:
        TensorError: There are more than 10,000 versions.
        google.protobuf.message.DecodeError: The bytes are not a valid message.

    Example:
        >>> version_statuses(b"")
        []
    """
    response = pb.GetModelStatusResponse.FromString(raw)
    _check_count(len(response.model_version_status), "versions")
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


def describe_states(statuses: Sequence[VersionStatus]) -> str:
    """Return the states of versions in words, those of the newest ten.

    Example:
        >>> describe_states([VersionStatus(2, "LOADING", "OK", "")])
        'version 2 LOADING'
    """
    shown = [f"version {one.version} {one.state}" for one in statuses[:_SHOWN_STATES]]
    further = len(statuses) - len(shown)
    return ", ".join(shown) + (f" and {further:,} more" if further else "")


def _check_count(count: int, what: str) -> None:
    if count > _MAX_ENTRIES:
        raise TensorError(
            f"`raw` must not list so many {what} of one model",
            expected=f"{_MAX_ENTRIES:,} at most",
            received=f"{count:,}",
        )


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

"""The Predict call: what is checked, in which order, and what is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import numpy as np

from cnnkit.server.status_error import StatusError, invalid_argument
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.dtypes import TensorError, type_name
from cnnkit.wire.tensors import LARGEST_TENSOR, decode_tensor, encode_values

if TYPE_CHECKING:
    from cnnkit.server.servable import SavedModelServable

Outputs = dict[str, np.ndarray]

# Where TensorFlow's name of a type differs from NumPy's.
_TENSORFLOW_NAMES = {"float32": "float", "float64": "double", "float16": "half"}


@dataclass(frozen=True)
class PreparedCall:
    """A Predict request that has been read and fits the signature.

    Attributes:
        servable: What runs it.
        signature: The signature's name.
        inputs: Every input of it.
        outputs: The names of the outputs wanted.
        rows: The size of the first dimension, where every input has the same; else None.
    """

    servable: SavedModelServable
    signature: str
    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...]
    rows: int | None

    def run(self) -> Outputs:
        """Runs it by itself.

        Raises:
            Refusal: The graph could not digest the values.
        """
        return self.servable.run(self.signature, self.inputs, self.outputs)


def prepare_predict(
    request: pb.PredictRequest,
    find: Callable[[pb.ModelSpec], SavedModelServable],
    *,
    largest: int = LARGEST_TENSOR,
    most_rows: int | None = None,
) -> PreparedCall:
    """Reads and checks one Predict request.

    Shapes are checked against the signature before the graph runs: TensorFlow's convolution ends
    the whole process when it is given a tensor of the wrong rank.

    Args:
        request: Which model, and its inputs.
        find: The servable that a model_spec asks for.
        largest: The most bytes that an input may have, however short its message.
        most_rows: The largest first dimension; None for any.

    Raises:
        Refusal: The request cannot be answered.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    servable = find(request.model_spec)
    signature = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
    definition = servable.definitions.signature_def.get(signature)
    if definition is None:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.'
        )
    inputs = _read_inputs(request.inputs, definition.inputs, largest)
    outputs = _chosen_outputs(request.output_filter, definition.outputs)
    _check_inputs(request.inputs, inputs, definition.inputs)
    rows = _rows(inputs.values())
    if rows is not None and most_rows is not None and rows > most_rows:
        raise invalid_argument(
            f"Task size {rows} is larger than maximum input batch size {most_rows}"
        )
    return PreparedCall(servable, signature, inputs, outputs, rows)


def encode_predict_response(call: PreparedCall, outputs: Outputs) -> pb.PredictResponse:
    """Returns the outputs as a model server sends them, with which model made them."""
    response = pb.PredictResponse()
    response.model_spec.name = call.servable.name
    response.model_spec.version.value = call.servable.version
    response.model_spec.signature_name = call.signature
    for name, array in outputs.items():
        response.outputs[name].CopyFrom(encode_values(array))
    return response


def _read_inputs(
    given: Mapping[str, pb.TensorProto], wanted: Mapping[str, pb.TensorInfo], largest: int
) -> dict[str, np.ndarray]:
    if len(given) != len(wanted):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({_set(given)}) != len({_set(wanted)}). "
            f"Sent extra: {_set(set(given) - set(wanted))}. "
            f"Missing but required: {_set(set(wanted) - set(given))}."
        )
    inputs = {}
    for name in sorted(wanted):
        if name not in given:
            raise invalid_argument(
                f"Signature input alias: {name}(feed name: {wanted[name].name}) not found in "
                "request and no default value provided. Inputs expected to be in the request "
                f"{_set(given)}, or default input alias set: "
            )
        try:
            inputs[name] = decode_tensor(given[name], largest=largest)
        except TensorError as error:
            # Clients show the first line; the second says what the tensor's fault is.
            raise invalid_argument(f"tensor parsing error: {name}\n{error}") from error
    return inputs


def _chosen_outputs(names: Iterable[str], wanted: Mapping[str, pb.TensorInfo]) -> tuple[str, ...]:
    chosen = tuple(names)
    for name in chosen:
        if name not in wanted:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {_set(wanted)}."
            )
    return chosen or tuple(sorted(wanted))


def _check_inputs(
    given: Mapping[str, pb.TensorProto],
    inputs: Mapping[str, np.ndarray],
    wanted: Mapping[str, pb.TensorInfo],
) -> None:
    for position, (name, array) in enumerate(inputs.items()):
        info = wanted[name]
        if given[name].dtype != info.dtype:
            raise invalid_argument(
                f"Expects arg[{position}] to be {_type_name(info.dtype)} "
                f"but {_type_name(given[name].dtype)} is provided"
            )
        if info.tensor_shape.unknown_rank:
            continue
        sizes = [dim.size for dim in info.tensor_shape.dim]
        fits = array.ndim == len(sizes) and all(
            wanted_size in (-1, size) for wanted_size, size in zip(sizes, array.shape, strict=True)
        )
        if not fits:
            expected = ",".join("?" if size == -1 else str(size) for size in sizes)
            received = ",".join(map(str, array.shape))
            raise invalid_argument(
                f"Shape of tensor {name} [{received}] is not compatible with expected shape "
                f"[{expected}]."
            )


def _rows(arrays: Iterable[np.ndarray]) -> int | None:
    sizes = {array.shape[0] if array.ndim else None for array in arrays}
    return sizes.pop() if len(sizes) == 1 else None


def _type_name(number: int) -> str:
    name = type_name(number)
    return _TENSORFLOW_NAMES.get(name, name)


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"

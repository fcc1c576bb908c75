"""Which model a call is for, and the bytes that ask it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.pieces import head
from cnnkit.wire.tensors import encoded

# The numbers of fields: in a pair of a map, in PredictRequest.
_KEY, _VALUE = 1, 2
_INPUTS = 2


@dataclass(frozen=True)
class Target:
    """Which model is asked: its newest version, one by number, or one by label.

    Raises:
        UsageError: No name, or a version and a label.

    Example:
        >>> Target("digits", version=2).spec().version.value
        2
    """

    model: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("A call needs the name of a model")
        if self.version is not None and self.label is not None:
            raise UsageError(
                "A version is asked for twice",
                expected="a version or a label",
                received=f"version {self.version} and label {self.label!r}",
            )

    def spec(self, signature: str = "") -> pb.ModelSpec:
        """Returns the message that says so."""
        spec = pb.ModelSpec(name=self.model, signature_name=signature)
        if self.version is not None:
            spec.version.value = self.version
        elif self.label is not None:
            spec.version_label = self.label
        return spec


def predict_request(
    target: Target,
    signature: str,
    inputs: Mapping[str, npt.NDArray[Any]],
    outputs: Iterable[str] = (),
) -> bytes:
    """Returns the bytes of a Predict request, made with one copy of the arrays.

    Raises:
        TensorError: The elements of an array cannot travel.

    Example:
        >>> import numpy as np
        >>> raw = predict_request(Target("m"), "", {"x": np.zeros(2, np.float32)})
        >>> pb.PredictRequest.FromString(raw).inputs["x"].tensor_content == bytes(8)
        True
    """
    pieces: list[bytes | memoryview] = [_addressed(target, signature, tuple(outputs))]
    for name, array in inputs.items():
        tensor = encoded(array)
        size = sum(map(len, tensor))
        key = name.encode()
        entry = [head(_KEY, len(key)), key, head(_VALUE, size)]
        pieces += (head(_INPUTS, sum(map(len, entry)) + size), *entry, *tensor)
    return b"".join(pieces)


@functools.lru_cache(maxsize=64)
def _addressed(target: Target, signature: str, outputs: tuple[str, ...]) -> bytes:
    """Returns a request without inputs; a client mostly asks the same model for the same."""
    return pb.PredictRequest(
        model_spec=target.spec(signature), output_filter=outputs
    ).SerializeToString()

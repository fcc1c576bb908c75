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
    pieces: list[bytes | memoryview] = [addressed(target, signature, tuple(outputs))]
    for name, array in inputs.items():
        pieces += entry(key_of(name), encoded(array))
    return b"".join(pieces)


def key_of(name: str) -> bytes:
    """Returns the first half of the pair that gives an input its values.

    Example:
        >>> key_of("x").hex()
        '0a0178'
    """
    key = name.encode()
    return head(_KEY, len(key)) + key


def entry(key: bytes, tensor: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Returns the field of a request that is one input, in pieces.

    Args:
        key: As of `key_of`.
        tensor: The pieces of the message that holds its values.

    Example:
        >>> b"".join(entry(key_of("x"), [b"12"])).hex()
        '12070a017812023132'
    """
    size = sum(map(len, tensor))
    value = head(_VALUE, size)
    return [head(_INPUTS, len(key) + len(value) + size), key, value, *tensor]


@functools.lru_cache(maxsize=64)
def addressed(target: Target, signature: str, outputs: tuple[str, ...]) -> bytes:
    """Returns the bytes of a request without inputs; mostly the same model is asked for the same.

    Example:
        >>> addressed(Target("m"), "", ()).hex()
        '0a030a016d'
    """
    return pb.PredictRequest(
        model_spec=target.spec(signature), output_filter=outputs
    ).SerializeToString()

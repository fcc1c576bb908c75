"""Which model a call is for, and the bytes that ask it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.tensors import encode


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
    spec: pb.ModelSpec, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]
) -> bytes:
    """Returns the bytes of a Predict request.

    Example:
        >>> import numpy as np
        >>> raw = predict_request(pb.ModelSpec(name="m"), {"x": np.zeros(2, np.float32)}, [])
        >>> pb.PredictRequest.FromString(raw).inputs["x"].tensor_content == bytes(8)
        True
    """
    request = pb.PredictRequest(model_spec=spec, output_filter=outputs)
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(encode(array))
    return request.SerializeToString()

"""Parse Predict responses.

`decode_predict_response` takes the values of an output straight from the response's bytes. Protobuf
would first copy them into a message.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.protobuf import UnreadableError, split_fields
from cnnkit.wire.tensors import decode_tensor, decode_tensor_bytes

# Field numbers of a map entry, and of PredictResponse.outputs.
_KEY, _VALUE = 1, 2
_OUTPUTS = 1


def decode_predict_response(raw: bytes) -> tuple[int, dict[str, npt.NDArray[Any]]]:
    """Return the model version and the outputs of a Predict response.

    Args:
        raw: The serialized response.

    Returns:
        The version that computed the outputs, and the outputs by name.

    Raises:
        TensorError: A tensor's shape and values do not agree, or its type is not supported.
        google.protobuf.message.DecodeError: The bytes are not a valid message.

    Example:
        >>> import numpy as np
        >>> from cnnkit.wire.tensors import to_tensor_proto
        >>> response = pb.PredictResponse(outputs={"y": to_tensor_proto(np.float32([1, 2]))})
        >>> response.model_spec.version.value = 3
        >>> decode_predict_response(response.SerializeToString())
        (3, {'y': array([1., 2.], dtype=float32)})
    """
    try:
        taken, rest = split_fields(memoryview(raw), {_OUTPUTS})
        version = pb.PredictResponse.FromString(rest).model_spec.version.value
        return version, dict(map(_decode_entry, taken.get(_OUTPUTS, ())))
    except UnreadableError:
        response = pb.PredictResponse.FromString(raw)
        outputs = {name: decode_tensor(tensor) for name, tensor in response.outputs.items()}
        return response.model_spec.version.value, outputs


def _decode_entry(raw: memoryview) -> tuple[str, npt.NDArray[Any]]:
    """Parse one entry of `PredictResponse.outputs`: its name and its array."""
    entry, rest = split_fields(raw, {_KEY, _VALUE})
    if rest or [len(entry.get(number, ())) for number in (_KEY, _VALUE)] != [1, 1]:
        raise UnreadableError("`raw` must hold one key and one value")
    try:
        name = bytes(entry[_KEY][0]).decode()
    except UnicodeDecodeError:
        raise UnreadableError("`raw` must hold a key in UTF-8") from None
    return name, decode_tensor_bytes(entry[_VALUE][0])

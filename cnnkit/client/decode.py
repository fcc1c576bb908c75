"""Parse Predict responses, and cache their layouts so that repeated calls skip parsing.

`decode_predict_response` takes the values of an output straight from the response's bytes. Protobuf
would first copy them into a message.

Successive responses of a model mostly differ in their values alone. So `LayoutCache` remembers the
places of the values in a response. If the next response has the same length and the same bytes
between the values, the arrays are copied from these places.

Without layouts, a call to a server that responds immediately takes 6 % (one image) to 10 % (a photo
of 100 kB) more CPU time of the client, and 4 to 15 % more time (medians of three runs of
benchmarks/client.py; docs/guide/client.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.client.expected import ExpectedOutputs
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import TensorError, wire_type_of
from cnnkit.wire.protobuf import UnreadableError, find_fields, split_fields
from cnnkit.wire.shapes import CONTENT_FIELD, MAX_UNCHECKED_BYTES
from cnnkit.wire.tensors import (
    MAX_TENSOR_BYTES,
    PACKED_FIELDS,
    Check,
    decode_tensor,
    decode_tensor_bytes,
)

# Field numbers of a map entry, and of PredictResponse.outputs.
_KEY, _VALUE = 1, 2
_OUTPUTS = 1
# Layouts of a client, at most.
_MAX_LAYOUTS = 64
# Bytes of a response besides its values, if its layout is cached, at most.
_MAX_FRAME_BYTES = 4096
# Bytes of a response whose layout is looked for, at most: that compares its values with a copy.
_MAX_LAYOUT_BYTES = 2**24
# Outputs of a response, at most.
_MAX_OUTPUTS = 4096


def decode_predict_response(
    raw: bytes, expected: ExpectedOutputs | None = None, *, max_bytes: int = MAX_TENSOR_BYTES
) -> tuple[int, dict[str, npt.NDArray[Any]]]:
    """Return the model version and the outputs of a Predict response.

    Args:
        raw: The serialized response.
        expected: The outputs that were asked for; any by default. Others are not decoded.
        max_bytes: Bytes of all outputs together, at most.

    Returns:
        The version that computed the outputs, and the outputs by name.

    Raises:
        OutputMismatch: An output is not the expected one, or is missing.
        TensorError: A tensor's shape and values do not agree, its type is not supported, or the
            outputs are too large.
        google.protobuf.message.DecodeError: The bytes are not a valid message.

    Example:
        >>> from cnnkit.wire.tensors import to_tensor_proto
        >>> response = pb.PredictResponse(outputs={"y": to_tensor_proto(np.float32([1, 2]))})
        >>> response.model_spec.version.value = 3
        >>> decode_predict_response(response.SerializeToString())
        (3, {'y': array([1., 2.], dtype=float32)})
    """
    entries: Iterable[tuple[str, Any]]
    decode: Callable[..., npt.NDArray[Any]] = decode_tensor_bytes
    try:
        taken, rest = split_fields(memoryview(raw), {_OUTPUTS}, most=_MAX_OUTPUTS)
        entries = [_split_entry(entry) for entry in taken.get(_OUTPUTS, ())]
        if len({name for name, _ in entries}) < len(entries):
            raise UnreadableError("`raw` must hold each output once")
        version = pb.PredictResponse.FromString(rest).model_spec.version.value
    except UnreadableError as error:
        # Protobuf makes 100 bytes of the two bytes of an empty output.
        if len(raw) > MAX_UNCHECKED_BYTES:
            raise TensorError(
                f"`raw` of {len(raw):,} bytes must be a plain message", received=str(error)
            ) from error
        response = pb.PredictResponse.FromString(raw)
        version, decode, entries = (
            response.model_spec.version.value, decode_tensor, response.outputs.items()
        )  # fmt: skip
    outputs: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in entries:
        check: Check | None = None
        if expected is not None:
            if not expected.is_asked(name):
                continue
            check = partial(expected.check, name)
        outputs[name] = decode(tensor, max_bytes=max_bytes, check=check)
        max_bytes -= outputs[name].nbytes
    if expected is not None:
        expected.check_names(outputs)
    return version, outputs


def _split_entry(raw: memoryview) -> tuple[str, memoryview]:
    """Parse one entry of `PredictResponse.outputs`: its name and its serialized tensor."""
    entry, rest = split_fields(raw, {_KEY, _VALUE}, most=_MAX_OUTPUTS)
    if rest or [len(entry.get(number, ())) for number in (_KEY, _VALUE)] != [1, 1]:
        raise UnreadableError("`raw` must hold one key and one value")
    try:
        name = bytes(entry[_KEY][0]).decode()
    except UnicodeDecodeError:
        raise UnreadableError("`raw` must hold a key in UTF-8") from None
    return name, entry[_VALUE][0]


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """The place of one output's values in a response.

    Attributes:
        name: Name of the output.
        dtype: NumPy dtype of the values.
        shape: Shape of the output.
        begin: Index of the first byte.
        end: Index after the last byte.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int

    def copy_from(self, raw: bytes) -> npt.NDArray[Any]:
        """Return a copy of the values."""
        stored = np.frombuffer(raw, self.dtype, math.prod(self.shape), self.begin)
        return stored.reshape(self.shape).copy()


@dataclass(frozen=True, slots=True)
class Layout:
    """The common part of responses that differ in their values alone.

    Attributes:
        places: Places of the values.
        frame: All other bytes, each piece with its index.
        version: The model version, which is part of `frame`.
        expected: The outputs that were asked for.
    """

    places: tuple[OutputPlace, ...]
    frame: tuple[tuple[bytes, int], ...]
    version: int
    expected: ExpectedOutputs | None


_Range = tuple[int, int]


class LayoutCache:
    """Layouts of the responses that one client received. Safe to use from several threads.

    Example:
        >>> from cnnkit.wire.tensors import to_tensor_proto
        >>> response = pb.PredictResponse(outputs={"y": to_tensor_proto(np.float32([1, 2]))})
        >>> cache = LayoutCache()
        >>> cache.decode(response.SerializeToString())
        (0, {'y': array([1., 2.], dtype=float32)})
    """

    def __init__(self) -> None:
        # By the length of the response.
        self.layouts: dict[int, Layout] = {}

    def decode(
        self,
        raw: bytes,
        expected: ExpectedOutputs | None = None,
        *,
        max_bytes: int = MAX_TENSOR_BYTES,
    ) -> tuple[int, dict[str, npt.NDArray[Any]]]:
        """Parse a response like `decode_predict_response`, by a cached layout if one matches."""
        layout = self.layouts.get(len(raw))
        if layout is not None and layout.expected == expected:
            for piece, begin in layout.frame:
                if not raw.startswith(piece, begin):
                    break
            else:
                return layout.version, {place.name: place.copy_from(raw) for place in layout.places}
        version, outputs = decode_predict_response(raw, expected, max_bytes=max_bytes)
        layout = _find_layout(raw, version, outputs, expected)
        if layout is not None:
            if len(self.layouts) >= _MAX_LAYOUTS:
                self.layouts.clear()
            self.layouts[len(raw)] = layout
        return version, outputs


def _find_layout(
    raw: bytes,
    version: int,
    outputs: dict[str, npt.NDArray[Any]],
    expected: ExpectedOutputs | None,
) -> Layout | None:
    """Return the layout of a parsed response, or None if an output is not an array's memory."""
    if len(raw) > _MAX_LAYOUT_BYTES:
        return None
    try:
        places = [
            _find_place(raw, entry, outputs)
            for entry in _find_contents(raw, (0, len(raw)), {_OUTPUTS})
        ]
    except UnreadableError:
        return None
    if len(raw) - sum(place.end - place.begin for place in places) > _MAX_FRAME_BYTES:
        return None
    ends = [0, *(place.end for place in places)]
    begins = [*(place.begin for place in places), len(raw)]
    frame = tuple((raw[end:begin], end) for end, begin in zip(ends, begins, strict=True))
    return Layout(tuple(places), frame, version, expected)


def _find_place(raw: bytes, entry: _Range, outputs: dict[str, npt.NDArray[Any]]) -> OutputPlace:
    """Locate the values of one output.

    Raises:
        UnreadableError: They are not an array's memory in one piece.
    """
    keys, tensors = (_find_contents(raw, entry, {number}) for number in (_KEY, _VALUE))
    if len(keys) != 1 or len(tensors) != 1:
        raise UnreadableError("`raw` must hold one key and one value")
    name = raw[slice(*keys[0])].decode(errors="replace")
    array = outputs.get(name)
    # Not bools: any byte but 0 is True.
    if array is None or array.dtype.kind not in "fciu":
        raise UnreadableError("`raw` must hold numbers")
    pieces = [
        piece for piece in _find_contents(raw, tensors[0], PACKED_FIELDS) if piece[0] < piece[1]
    ]
    own = {CONTENT_FIELD, wire_type_of(array.dtype).field_number}
    if len(pieces) != 1 or pieces[0] not in _find_contents(raw, tensors[0], own):
        raise UnreadableError("`raw` must hold its values in one piece")
    if raw[slice(*pieces[0])] != array.tobytes():
        raise UnreadableError("`raw` must hold every value, as the array stores it")
    return OutputPlace(name, array.dtype, array.shape, *pieces[0])


def _find_contents(raw: bytes, message: _Range, numbers: Container[int]) -> list[_Range]:
    """Locate the contents of some fields of a message."""
    found = find_fields(memoryview(raw), *message)
    return [(content, end) for number, _, content, end in found if content and number in numbers]

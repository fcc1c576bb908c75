"""The bytes that answer a Predict call, read.

A client mostly gets the same answer again with other values in it. So where the values of an answer
stood is kept: in the next one of the same length, whose other bytes are the same, they stand there
again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import wire_type_of
from cnnkit.wire.protobuf import UnreadableError, find_field, iter_fields
from cnnkit.wire.tensors import CONTENT, IN_ONE_PIECE, decode_tensor, decode_tensor_bytes

# The numbers of fields: in a pair of a map, in PredictResponse.
_KEY, _VALUE = 1, 2
_OUTPUTS = 1
# Bytes up to which something is kept for the next answer, and how many things.
_SHORT = 256
_KEPT = 64
# Bytes beside the values of an answer whose form is kept, at most.
_LONGEST_FRAME = 4096


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the values of one output stand in an answer, and what they are."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Form:
    """What answers that differ in nothing but their values have in common.

    Attributes:
        places: Of the values.
        between: All other bytes, and where they begin.
        version: The version that answered; it is among these bytes.
    """

    places: tuple[_Place, ...]
    between: tuple[tuple[bytes, int], ...]
    version: int


_Range = tuple[int, int]

# By the length of the answer; threads put in whole forms, and any of them is right or not used.
_forms: dict[int, _Form] = {}


def decode_predict_response(raw: bytes) -> tuple[int, dict[str, npt.NDArray[Any]]]:
    """Returns the version that answered a Predict request, and its outputs by name.

    Raises:
        TensorError: A tensor is not what it claims to be.
        google.protobuf.message.DecodeError: The bytes are no message.

    Example:
        >>> from cnnkit.wire.tensors import to_tensor_proto
        >>> response = pb.PredictResponse(outputs={"y": to_tensor_proto(np.float32([1, 2]))})
        >>> response.model_spec.version.value = 3
        >>> decode_predict_response(response.SerializeToString())
        (3, {'y': array([1., 2.], dtype=float32)})
    """
    form = _forms.get(len(raw))
    if form is not None:
        for same, begin in form.between:
            if not raw.startswith(same, begin):
                break
        else:
            return form.version, {place.name: _values(raw, place) for place in form.places}
    version, outputs = _read(raw)
    form = _form(raw, version, outputs)
    if form is not None:
        if len(_forms) >= _KEPT:
            _forms.clear()
        _forms[len(raw)] = form
    return version, outputs


def _read(raw: bytes) -> tuple[int, dict[str, npt.NDArray[Any]]]:
    try:
        taken, rest = find_field(memoryview(raw), {_OUTPUTS})
        version = _version if len(rest) <= _SHORT else _version.__wrapped__
        return version(rest), dict(map(_entry, taken.get(_OUTPUTS, ())))
    except UnreadableError:
        response = pb.PredictResponse.FromString(raw)
        outputs = {name: decode_tensor(tensor) for name, tensor in response.outputs.items()}
        return response.model_spec.version.value, outputs


@functools.lru_cache(maxsize=_KEPT)
def _version(rest: bytes) -> int:
    """Returns the version that made an answer, of which the outputs were taken out."""
    return pb.PredictResponse.FromString(rest).model_spec.version.value


def _entry(raw: memoryview) -> tuple[str, npt.NDArray[Any]]:
    """Reads one pair of a map."""
    pair, rest = find_field(raw, {_KEY, _VALUE})
    if rest or [len(pair.get(number, ())) for number in (_KEY, _VALUE)] != [1, 1]:
        raise UnreadableError("a pair in another way than as a key and a value")
    try:
        name = bytes(pair[_KEY][0]).decode()
    except UnicodeDecodeError:
        raise UnreadableError("a key that is no text") from None
    return name, decode_tensor_bytes(pair[_VALUE][0])


def _values(raw: bytes, place: _Place) -> npt.NDArray[Any]:
    stored = np.frombuffer(raw, place.dtype, math.prod(place.shape), place.begin)
    return stored.reshape(place.shape).copy()


def _form(raw: bytes, version: int, outputs: dict[str, npt.NDArray[Any]]) -> _Form | None:
    """Returns the form of an answer that was read; None where it is not only values in a row."""
    try:
        places = [_place(raw, piece, outputs) for piece in _sized(raw, (0, len(raw)), {_OUTPUTS})]
    except UnreadableError:
        return None
    if len(raw) - sum(place.end - place.begin for place in places) > _LONGEST_FRAME:
        return None
    ends = [0, *(place.end for place in places)]
    begins = [*(place.begin for place in places), len(raw)]
    between = tuple((raw[end:begin], end) for end, begin in zip(ends, begins, strict=True))
    return _Form(tuple(places), between, version)


def _place(raw: bytes, pair: _Range, outputs: dict[str, npt.NDArray[Any]]) -> _Place:
    """Returns where the values of one output are.

    Raises:
        UnreadableError: They are not in one piece that is an array's bytes.
    """
    keys, tensors = (_sized(raw, pair, {number}) for number in (_KEY, _VALUE))
    if len(keys) != 1 or len(tensors) != 1:
        raise UnreadableError("a pair in another way than as a key and a value")
    name = raw[slice(*keys[0])].decode(errors="replace")
    array = outputs.get(name)
    # Of a bool, any byte but 0 is true.
    if array is None or array.dtype.kind not in "fciu":
        raise UnreadableError("values that are not an array's bytes")
    pieces = [piece for piece in _sized(raw, tensors[0], IN_ONE_PIECE) if piece[0] < piece[1]]
    own = {CONTENT, wire_type_of(array.dtype).field_number}
    if len(pieces) != 1 or pieces[0] not in _sized(raw, tensors[0], own):
        raise UnreadableError("values in another way than as one piece")
    if raw[slice(*pieces[0])] != array.tobytes():
        raise UnreadableError("values that are repeated, or written in another way")
    return _Place(name, array.dtype, array.shape, *pieces[0])


def _sized(raw: bytes, message: _Range, numbers: Container[int]) -> list[_Range]:
    """Returns where the contents of some fields of a message are."""
    found = iter_fields(memoryview(raw), *message)
    return [(content, end) for number, _, content, end in found if content and number in numbers]

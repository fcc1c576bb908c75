"""Which model a call is for, and the bytes that ask it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnkit.client import inputs
from cnnkit.client.metadata import Signature
from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire.dtypes import STRING, wire_type_of
from cnnkit.wire.protobuf import encode_tag
from cnnkit.wire.tensors import encode_tensor

# The numbers of fields: in a pair of a map, in PredictRequest.
_KEY, _VALUE = 1, 2
_INPUTS = 2


@dataclass(frozen=True)
class RequestTarget:
    """Which model is asked: its newest version, one by number, or one by label.

    Raises:
        UsageError: No name, or a version and a label.

    Example:
        >>> RequestTarget("digits", version=2).spec().version.value
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


def encode_predict_request(
    target: RequestTarget,
    signature: str,
    inputs: Mapping[str, npt.NDArray[Any]],
    outputs: Iterable[str] = (),
) -> bytes:
    """Returns the bytes of a Predict request, made with one copy of the arrays.

    Raises:
        TensorError: The elements of an array cannot travel.

    Example:
        >>> import numpy as np
        >>> raw = encode_predict_request(RequestTarget("m"), "", {"x": np.zeros(2, np.float32)})
        >>> pb.PredictRequest.FromString(raw).inputs["x"].tensor_content == bytes(8)
        True
    """
    pieces: list[bytes | memoryview] = [encode_header(target, signature, tuple(outputs))]
    for name, array in inputs.items():
        pieces += encode_map_entry(encode_map_key(name), encode_tensor(array))
    return b"".join(pieces)


def encode_map_key(name: str) -> bytes:
    """Returns the first half of the pair that gives an input its values.

    Example:
        >>> encode_map_key("x").hex()
        '0a0178'
    """
    key = name.encode()
    return encode_tag(_KEY, len(key)) + key


def encode_map_entry(key: bytes, tensor: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Returns the field of a request that is one input, in pieces.

    Args:
        key: As of `encode_map_key`.
        tensor: The pieces of the message that holds its values.

    Example:
        >>> b"".join(encode_map_entry(encode_map_key("x"), [b"12"])).hex()
        '12070a017812023132'
    """
    size = sum(map(len, tensor))
    value = encode_tag(_VALUE, size)
    return [encode_tag(_INPUTS, len(key) + len(value) + size), key, value, *tensor]


@functools.lru_cache(maxsize=64)
def encode_header(target: RequestTarget, signature: str, outputs: tuple[str, ...]) -> bytes:
    """Returns the bytes of a request without inputs; mostly the same model is asked for the same.

    Example:
        >>> encode_header(RequestTarget("m"), "", ()).hex()
        '0a030a016d'
    """
    return pb.PredictRequest(
        model_spec=target.spec(signature), output_filter=outputs
    ).SerializeToString()


# Forms kept at most.
_KEPT = 64

# All that a request's form is made of, but for the input's name: its signature has only one.
TemplateKey = tuple[RequestTarget, str, tuple[str, ...], int | None, np.dtype[Any], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A form that was checked.

    Attributes:
        signature: Against which it was; of another version of the model there is another.
        head: What stands before the values; before the input where they are strings, whose lengths
            stand between them and count for what stands before.
        key: Of the input where it is of strings, else None.
    """

    signature: Signature
    head: bytes
    key: bytes | None


def template_key(
    given: object, target: RequestTarget, signature: str, outputs: tuple[str, ...], rows: int | None
) -> TemplateKey | None:
    """Returns the form of a request; None where it is not one array of NumPy's."""
    if type(given) is not np.ndarray:
        return None
    return target, signature, outputs, rows, given.dtype, given.shape


class TemplateCache:
    """The forms of one client's requests with one input, for any number of threads.

    Example:
        >>> from cnnkit.client.metadata import TensorSpec
        >>> spec = {"x": TensorSpec("float32", (None, 2))}
        >>> signature, target = Signature(spec, spec), RequestTarget("m")
        >>> requests, array = TemplateCache(), np.ones((1, 2), np.float32)
        >>> form = template_key(array, target, "s", (), None)
        >>> requests.keep(form, signature, array, {"x": array})
        >>> requests.again(form, signature, array) == encode_predict_request(target, "s", {"x": array})
        True
    """

    def __init__(self) -> None:
        self._kept: dict[TemplateKey, _Kept] = {}

    def keep(
        self, form: TemplateKey, signature: Signature, given: object, fitted: inputs.Arrays
    ) -> None:
        """Keeps a form, unless what was given had to be changed so that it fits its signature."""
        [(name, array), *others] = fitted.items()
        kind = wire_type_of(array.dtype)
        if others or array is not given or array.dtype != (kind.stored or np.dtype(object)):
            return
        target, chosen, outputs, *_ = form
        if kind is STRING:
            kept = _Kept(signature, encode_header(target, chosen, outputs), encode_map_key(name))
        else:
            whole = encode_predict_request(target, chosen, fitted, outputs)
            kept = _Kept(signature, whole[: len(whole) - array.nbytes], None)
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[form] = kept

    def again(self, form: TemplateKey, signature: Signature | None, given: Any) -> bytes | None:
        """Returns the request that sends an array of a form; None where the form is not known."""
        kept = self._kept.get(form)
        if kept is None or kept.signature is not signature or not given.flags.c_contiguous:
            return None
        if kept.key is None:
            return b"".join((kept.head, given))
        tensor = encode_tensor(given)
        # How many requests strings make follows from their lengths too.
        if not inputs.fits_one_request(sum(map(len, tensor))):
            return None
        return b"".join((kept.head, *encode_map_entry(kept.key, tensor)))

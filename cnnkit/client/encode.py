"""Serialize Predict requests, and cache request templates so that repeated calls skip validation.

Whether an array fits a signature, and how many requests it takes, depends on its dtype and shape
alone. So for the second array of the same dtype and shape, `TemplateCache` returns the request
without validating or describing the array again: a template holds the bytes before the values.

Without templates, a call of one image to a server that responds immediately takes 20 % more CPU
time of the client and 12 % more time; a call of a 100 kB photo takes 8 % and 1 % more (medians of
three runs of benchmarks/client.py; docs/guide/client.md).
"""

from __future__ import annotations

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

# Field numbers of a map entry, and of PredictRequest.inputs.
_KEY, _VALUE = 1, 2
_INPUTS = 2
# Templates of a client, at most.
_MAX_TEMPLATES = 64


@dataclass(frozen=True)
class RequestTarget:
    """The model that a call is for: its newest version, a version, or a labeled version.

    Attributes:
        model: Name of the model on the server.
        version: Version number.
        version_label: Label of a version, instead of its number.

    Raises:
        UsageError: A name is empty or cannot be sent, `version` is no version number, or both
            `version` and `version_label` are given.

    Example:
        >>> RequestTarget("digits", version=2).model_spec().version.value
        2
    """

    model: str
    version: int | None = None
    version_label: str | None = None

    def __post_init__(self) -> None:
        for argument, name in (("model", self.model), ("version_label", self.version_label)):
            if name is not None and not _is_name(name):
                raise UsageError(
                    f"`{argument}` must be the name that the server knows, received {name!r}",
                    expected="a text",
                )
        if self.version is not None and not 0 <= self.version < 2**63:
            raise UsageError(
                "`version` must be a version number", expected="0 or more", received=self.version
            )
        if self.version is not None and self.version_label is not None:
            raise UsageError(
                "`version` and `version_label` must not be given together",
                received=f"version {self.version} and label {self.version_label!r}",
            )

    def model_spec(self, signature: str = "") -> pb.ModelSpec:
        """Return the message that names the model in a request."""
        spec = pb.ModelSpec(name=self.model, signature_name=signature)
        if self.version is not None:
            spec.version.value = self.version
        elif self.version_label is not None:
            spec.version_label = self.version_label
        return spec


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not name:
        return False
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # Half of a character, as in names of files that are not UTF-8.
        return False


def encode_predict_request(
    target: RequestTarget,
    signature: str,
    inputs: Mapping[str, npt.NDArray[Any]],
    outputs: Iterable[str] = (),
) -> bytes:
    """Serialize a Predict request with a single copy of the arrays.

    Args:
        target: The model.
        signature: Name of the signature.
        inputs: Arrays by input name.
        outputs: Names of the outputs to return; empty for all.

    Raises:
        TensorError: The dtype of an array is not supported.

    Example:
        >>> import numpy as np
        >>> raw = encode_predict_request(RequestTarget("m"), "", {"x": np.zeros(2, np.float32)})
        >>> pb.PredictRequest.FromString(raw).inputs["x"].tensor_content == bytes(8)
        True
    """
    pieces: list[bytes | memoryview] = [encode_header(target, signature, outputs)]
    for name, array in inputs.items():
        pieces += encode_map_entry(encode_map_key(name), encode_tensor(array))
    return b"".join(pieces)


def encode_header(target: RequestTarget, signature: str, outputs: Iterable[str]) -> bytes:
    """Serialize a Predict request without inputs.

    Example:
        >>> encode_header(RequestTarget("m"), "", ()).hex()
        '0a030a016d'
    """
    return pb.PredictRequest(
        model_spec=target.model_spec(signature), output_filter=outputs
    ).SerializeToString()


def encode_map_key(name: str) -> bytes:
    """Serialize the key field of a map entry.

    Example:
        >>> encode_map_key("x").hex()
        '0a0178'
    """
    key = name.encode()
    return encode_tag(_KEY, len(key)) + key


def encode_map_entry(key: bytes, tensor: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Serialize one entry of `PredictRequest.inputs`, as pieces to be joined.

    Args:
        key: The key field, from `encode_map_key`.
        tensor: Pieces of the serialized tensor, from `encode_tensor`.

    Example:
        >>> b"".join(encode_map_entry(encode_map_key("x"), [b"12"])).hex()
        '12070a017812023132'
    """
    size = sum(map(len, tensor))
    value = encode_tag(_VALUE, size)
    return [encode_tag(_INPUTS, len(key) + len(value) + size), key, value, *tensor]


# Everything that determines a request besides the values. The input's name is not needed: the
# signature has only one input.
TemplateKey = tuple[RequestTarget, str, tuple[str, ...], int | None, np.dtype[Any], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Template:
    """A validated request without its values.

    Attributes:
        signature: Signature the template was validated against.
        prefix: Bytes before the values. For strings, bytes before the input: the lengths of the
            strings are mixed with their bytes, and the length of the input depends on them.
        key: Key field of the input if it holds strings, else None.
    """

    signature: Signature
    prefix: bytes
    key: bytes | None


def template_key(
    given: object,
    target: RequestTarget,
    signature: str,
    outputs: tuple[str, ...],
    batch_size: int | None,
) -> TemplateKey | None:
    """Return the cache key of a request, or None if `given` is not a NumPy array."""
    if type(given) is not np.ndarray:
        return None
    return target, signature, outputs, batch_size, given.dtype, given.shape


class TemplateCache:
    """Request templates of one client. Safe to use from several threads.

    Example:
        >>> from cnnkit.client.metadata import TensorSpec
        >>> spec = {"x": TensorSpec("float32", (None, 2))}
        >>> signature, target = Signature(spec, spec), RequestTarget("m")
        >>> cache, array = TemplateCache(), np.ones((1, 2), np.float32)
        >>> key = template_key(array, target, "s", (), None)
        >>> cache.put(key, signature, array, {"x": array})
        >>> cache.get(key, signature, array) == encode_predict_request(target, "s", {"x": array})
        True
    """

    def __init__(self) -> None:
        self._templates: dict[TemplateKey, _Template] = {}

    def put(
        self, key: TemplateKey, signature: Signature, given: object, bound: inputs.Arrays
    ) -> None:
        """Store the template of a validated request.

        Nothing is stored for a signature with several inputs, nor if the array had to be converted:
        then the values are not the array's bytes.

        Args:
            key: The cache key.
            signature: Signature that the array was validated against.
            given: The array as the caller passed it.
            bound: The array by input name, as it is sent.
        """
        [(name, array), *others] = bound.items()
        kind = wire_type_of(array.dtype)
        if others or array is not given or array.dtype != (kind.stored or np.dtype(object)):
            return
        target, signature_name, outputs, *_ = key
        if kind is STRING:
            prefix = encode_header(target, signature_name, outputs)
            template = _Template(signature, prefix, encode_map_key(name))
        else:
            request = encode_predict_request(target, signature_name, bound, outputs)
            template = _Template(signature, request[: len(request) - array.nbytes], None)
        if len(self._templates) >= _MAX_TEMPLATES:
            self._templates.clear()
        self._templates[key] = template

    def get(self, key: TemplateKey, signature: Signature | None, given: Any) -> bytes | None:
        """Return the request for an array, or None if there is no valid template.

        Args:
            key: The cache key of the array.
            signature: The current signature; a template of another one is not used.
            given: The array.
        """
        template = self._templates.get(key)
        if template is None or template.signature is not signature or not given.flags.c_contiguous:
            return None
        if template.key is None:
            return b"".join((template.prefix, given))
        tensor = encode_tensor(given)
        # The number of requests for strings depends on their lengths too.
        if not inputs.fits_one_request(sum(map(len, tensor))):
            return None
        return b"".join((template.prefix, *encode_map_entry(template.key, tensor)))

"""Requests made again with other values: what was checked of one holds for all of its form.

Whether an array fits a signature, and how many requests it makes, follows from its type and shape
alone. So the second array of the same type and shape for the same signature is neither checked
again nor described again: what stands before its values is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnkit.client import batches
from cnnkit.client.metadata import Signature
from cnnkit.client.request import Target, addressed, entry, key_of, predict_request
from cnnkit.wire.dtypes import STRING, wire_type_of
from cnnkit.wire.tensors import encoded

# Forms kept at most.
_KEPT = 64

# All that a request's form is made of, but for the input's name: its signature has only one.
Form = tuple[Target, str, tuple[str, ...], int | None, np.dtype[Any], tuple[int, ...]]


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


def form_of(
    given: object, target: Target, signature: str, outputs: tuple[str, ...], rows: int | None
) -> Form | None:
    """Returns the form of a request; None where it is not one array of NumPy's."""
    if type(given) is not np.ndarray:
        return None
    return target, signature, outputs, rows, given.dtype, given.shape


class Requests:
    """The forms of one client's requests with one input, for any number of threads.

    Example:
        >>> from cnnkit.client.metadata import TensorSpec
        >>> spec = {"x": TensorSpec("float32", (None, 2))}
        >>> signature, target = Signature(spec, spec), Target("m")
        >>> requests, array = Requests(), np.ones((1, 2), np.float32)
        >>> form = form_of(array, target, "s", (), None)
        >>> requests.keep(form, signature, array, {"x": array})
        >>> requests.again(form, signature, array) == predict_request(target, "s", {"x": array})
        True
    """

    def __init__(self) -> None:
        self._kept: dict[Form, _Kept] = {}

    def keep(self, form: Form, signature: Signature, given: object, fitted: batches.Arrays) -> None:
        """Keeps a form, unless what was given had to be changed so that it fits its signature."""
        [(name, array), *others] = fitted.items()
        kind = wire_type_of(array.dtype)
        if others or array is not given or array.dtype != (kind.stored or np.dtype(object)):
            return
        target, chosen, outputs, *_ = form
        if kind is STRING:
            kept = _Kept(signature, addressed(target, chosen, outputs), key_of(name))
        else:
            whole = predict_request(target, chosen, fitted, outputs)
            kept = _Kept(signature, whole[: len(whole) - array.nbytes], None)
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[form] = kept

    def again(self, form: Form, signature: Signature | None, given: Any) -> bytes | None:
        """Returns the request that sends an array of a form; None where the form is not known."""
        kept = self._kept.get(form)
        if kept is None or kept.signature is not signature or not given.flags.c_contiguous:
            return None
        if kept.key is None:
            return b"".join((kept.head, given))
        tensor = encoded(given)
        # How many requests strings make follows from their lengths too.
        if not batches.is_light(sum(map(len, tensor))):
            return None
        return b"".join((kept.head, *entry(kept.key, tensor)))

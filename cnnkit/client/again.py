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
from cnnkit.client.request import Target, predict_request
from cnnkit.wire.dtypes import STRING, wire_type_of

# Forms kept at most.
_KEPT = 64

# All that a request's form is made of, but for the input's name: its signature has only one.
Form = tuple[Target, str, tuple[str, ...], int | None, np.dtype[Any], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A form that was checked.

    Attributes:
        signature: Against which it was; of another version of the model there is another.
        name: Of the input.
        head: What stands before the values; None for strings, whose lengths stand between them.
    """

    signature: Signature
    name: str
    head: bytes | None


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
        head = None
        if kind is not STRING:
            target, chosen, outputs, *_ = form
            whole = predict_request(target, chosen, fitted, outputs)
            head = whole[: len(whole) - array.nbytes]
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[form] = _Kept(signature, name, head)

    def again(self, form: Form, signature: Signature | None, given: Any) -> bytes | None:
        """Returns the request that sends an array of a form; None where the form is not known."""
        kept = self._kept.get(form)
        if kept is None or kept.signature is not signature or not given.flags.c_contiguous:
            return None
        if kept.head is not None:
            return b"".join((kept.head, given))
        # How many requests strings make follows from their lengths too.
        if not batches.is_small(given):
            return None
        target, chosen, outputs, *_ = form
        return predict_request(target, chosen, {kept.name: given}, outputs)

"""The outputs that a Predict call asked for, as the signature declares them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from cnnkit.client.metadata import TensorSpec
from cnnkit.wire.dtypes import TensorError, WireType


class OutputMismatch(TensorError):
    """An output of a response that the signature does not declare, or declares otherwise."""


@dataclass(frozen=True)
class ExpectedOutputs:
    """The outputs of a response, checked before their values are converted.

    Attributes:
        declared: Outputs of the signature by name.
        asked: Names of the outputs that the request asked for; empty for all.

    Example:
        >>> expected = ExpectedOutputs({"y": TensorSpec("float32", (None, 2))})
        >>> expected.is_asked("y")
        True
    """

    declared: Mapping[str, TensorSpec]
    asked: tuple[str, ...] = ()

    def is_asked(self, name: str) -> bool:
        """Return True for an output that was asked for.

        Raises:
            OutputMismatch: The signature has no such output.
        """
        if name not in self.declared:
            raise OutputMismatch(
                "`outputs` of the response must be those of the signature",
                expected=", ".join(self.declared),
                received=name,
            )
        return not self.asked or name in self.asked

    def check(self, name: str, kind: WireType, shape: tuple[int, ...]) -> None:
        """Check the element type and the shape of an output.

        Raises:
            OutputMismatch: The signature declares others.
        """
        spec = self.declared[name]
        fits = spec.shape is None or (
            len(shape) == len(spec.shape)
            and all(
                wanted is None or size == wanted
                for size, wanted in zip(shape, spec.shape, strict=True)
            )
        )
        if kind.name != spec.dtype or not fits:
            raise OutputMismatch(
                f"Output {name!r} must be as the signature declares it",
                expected=spec,
                received=TensorSpec(kind.name, shape),
            )

    def check_names(self, names: Collection[str]) -> None:
        """Check that no output is missing.

        Raises:
            OutputMismatch: An output that was asked for is not among the names.
        """
        missing = [name for name in self.asked or self.declared if name not in names]
        if missing:
            raise OutputMismatch(
                "`outputs` of the response must hold all that were asked for",
                expected=", ".join(self.asked or self.declared),
                received=", ".join(names) or "none",
            )


def check_rows(
    outputs: Mapping[str, npt.NDArray[Any]],
    rows: int,
    *,
    axes: Mapping[str, int] = MappingProxyType({}),
    numbers: Iterable[str] = (),
) -> None:
    """Check that outputs have a row for each image, so that each can be read.

    Args:
        outputs: The outputs by name.
        rows: Number of images.
        axes: Number of axes, by name of the outputs for which it matters.
        numbers: Names of the outputs that must hold real numbers.

    Raises:
        TensorError: An output has other rows, axes or values, or is empty.

    Example:
        >>> import numpy as np
        >>> check_rows({"features": np.zeros((2, 4096))}, 2, axes={"features": 2})
    """
    for name, array in outputs.items():
        wanted = axes.get(name, max(array.ndim, 1))
        if array.ndim != wanted or len(array) != rows or not array.size:
            raise TensorError(
                f"Output {name!r} must have a row for each image",
                expected=f"{rows} rows, {wanted} axes",
                received=f"shape {list(array.shape)}",
            )
        # A bfloat16 of ml_dtypes has the kind V.
        if name in numbers and array.dtype.kind not in "fiubV":
            raise TensorError(f"Output {name!r} must hold real numbers", received=str(array.dtype))

"""Compare the outputs of an exported signature with those of the model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# By dtype and kind of output: largest difference of probabilities and scores; largest difference of
# features, and of activations and boxes relative to the largest one; length of the difference of
# projections, relative to their length.
TOLERANCES = {
    "float32": {"probabilities": 1e-5, "features": 1e-4, "projection": 1e-2},
    # Eight bits of mantissa, rounded at other places if a server fuses operations.
    "bfloat16": {"probabilities": 2e-2, "features": 5e-2, "projection": 0.5},
}
# Outputs whose differences are relative to their largest value.
SCALED = ("activation", "boxes")
# Kernels of another processor add in another order.
OTHER_PROCESSOR = 10.0


@dataclass(frozen=True)
class OutputAgreement:
    """The result of a comparison.

    Attributes:
        is_close: Whether every output is within its tolerance.
        difference: Difference of the worst output, as a multiple of its tolerance.
        detail: The worst output and its difference in words.
    """

    is_close: bool
    difference: float
    detail: str


def compare_outputs(
    expected: Mapping[str, np.ndarray],
    received: Mapping[str, np.ndarray],
    dtype: str = "float32",
    tolerance_factor: float = 1.0,
) -> OutputAgreement:
    """Compares the outputs of one signature.

    Args:
        expected: Arrays of the model in memory, by output.
        received: Arrays of the SavedModel, by output; further outputs are ignored.
        dtype: What the network computes in: a key of `TOLERANCES`.
        tolerance_factor: Factor of all tolerances.

    Example:
        >>> import numpy as np
        >>> from cnnkit.export.compare_outputs import compare_outputs
        >>> one = {"probabilities": np.array([[0.25, 0.75]])}
        >>> compare_outputs(one, {"probabilities": np.array([[0.25, 0.76]])}).is_close
        False
    """
    missing = sorted(set(expected) - set(received))
    if missing:
        return OutputAgreement(False, np.inf, f"the output {missing[0]!r} is missing")
    worst = OutputAgreement(True, 0.0, "equal")
    for name, values in expected.items():
        tolerance = tolerance_factor * TOLERANCES[dtype][_kind(name)]
        if name in ("labels", "unit", "position"):
            found = _compare_exact(name, values, received[name], expected, tolerance)
        else:
            found = _compare_numbers(name, values, received[name], tolerance)
        if not found.is_close:
            return found
        if found.difference > worst.difference:
            worst = found
    return worst


def _kind(name: str) -> str:
    if name == "projection":
        return name
    return "features" if name in ("features", "activation", "boxes") else "probabilities"


def _compare_numbers(
    name: str, expected: np.ndarray, received: np.ndarray, tolerance: float
) -> OutputAgreement:
    difference = _difference(name, expected, received)
    return OutputAgreement(
        # False for NaN.
        bool(difference <= tolerance),
        difference / tolerance,
        f"{name} differ by {difference:.2g}, {tolerance:.2g} are allowed",
    )


def _difference(name: str, expected: np.ndarray, received: np.ndarray) -> float:
    if (name == "scores" and expected.ndim == 2) or name == "boxes":
        # The reference outputs hold one class more.
        expected = expected[:, : received.shape[1]]
    if expected.shape != received.shape:
        return np.inf
    difference = received.astype(np.float64) - expected
    if name == "projection":
        axes = tuple(range(1, expected.ndim))
        lengths = np.sqrt((np.square(expected, dtype=np.float64)).sum(axis=axes))
        relative = np.sqrt(np.square(difference).sum(axis=axes)) / np.where(lengths > 0, lengths, 1)
        return float(relative.max(initial=0))
    scale = max(1.0, float(np.abs(expected).max(initial=0))) if name in SCALED else 1.0
    return float(np.abs(difference).max(initial=0)) / scale


def _compare_exact(
    name: str,
    expected: np.ndarray,
    received: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    tolerance: float,
) -> OutputAgreement:
    """Compares labels and indices; classes whose scores are equal may be in another order."""
    if expected.ndim == 2 and name == "labels":
        expected = expected[:, : received.shape[-1]]
        scores = outputs["scores"]
        gaps = np.abs(np.diff(scores, axis=1, append=np.inf, prepend=np.inf))
        ties = (np.minimum(gaps[:, :-1], gaps[:, 1:]) <= 2 * tolerance)[:, : expected.shape[1]]
    else:
        ties = np.zeros(expected.shape, bool)
    if expected.shape != received.shape:
        return OutputAgreement(
            False, np.inf, f"{name} have the shape {received.shape}, not {expected.shape}"
        )
    wrong = (expected != received) & ~ties
    if not wrong.any():
        return OutputAgreement(True, 0.0, f"{name} are equal")
    index = tuple(np.argwhere(wrong)[0])
    return OutputAgreement(
        False, np.inf, f"{name} are {received[index]!s} in place of {expected[index]!s}"
    )

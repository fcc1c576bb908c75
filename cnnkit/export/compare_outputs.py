"""How far two answers to the same question are apart, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# By dtype: probabilities and scores (largest difference), features and activations (relative to the
# longest), projections (length of the difference over the length).
TOLERANCES = {
    "float32": {"probabilities": 1e-5, "features": 1e-4, "projection": 1e-2},
    # Eight bits of mantissa, rounded at other places where a server joins operations.
    "bfloat16": {"probabilities": 2e-2, "features": 5e-2, "projection": 0.5},
}
# Another processor's kernels add in another order.
ELSEWHERE = 10.0


@dataclass(frozen=True)
class OutputAgreement:
    """Two answers beside each other.

    Attributes:
        near: Whether they are near enough.
        difference: How far the output that is worst is apart, in units of its tolerance.
        text: The same in words.
    """

    near: bool
    difference: float
    text: str


def compare_outputs(
    expected: Mapping[str, np.ndarray],
    received: Mapping[str, np.ndarray],
    dtype: str = "float32",
    factor: float = 1.0,
) -> OutputAgreement:
    """Compares the answers of one signature.

    Args:
        expected: Of the network in memory, by output.
        received: Of the SavedModel, by output; it may have more of them.
        dtype: What the network computes in.
        factor: How much wider than usual the tolerances are.

    Example:
        >>> import numpy as np
        >>> from cnnkit.export.compare_outputs import compare_outputs
        >>> one = {"probabilities": np.array([[0.25, 0.75]])}
        >>> compare_outputs(one, {"probabilities": np.array([[0.25, 0.76]])}).near
        False
    """
    missing = sorted(set(expected) - set(received))
    if missing:
        return OutputAgreement(False, np.inf, f"the output {missing[0]!r} is missing")
    worst = OutputAgreement(True, 0.0, "equal")
    for name, values in expected.items():
        tolerance = factor * TOLERANCES[dtype][_kind(name)]
        got = received[name]
        if name in ("labels", "unit", "position"):
            near, difference, text = _same(name, values, got, expected, tolerance)
        else:
            far = _distance(name, values, got)
            # Written so that a NaN is far.
            near, difference = bool(far <= tolerance), far / tolerance
            text = f"{name} differ by {far:.2g}, {tolerance:.2g} are allowed"
        if not near or (worst.near and difference > worst.difference):
            worst = OutputAgreement(near, difference, text)
        if not near:
            break
    return worst


def _kind(name: str) -> str:
    if name == "projection":
        return name
    return "features" if name in ("features", "activation") else "probabilities"


def _distance(name: str, expected: np.ndarray, received: np.ndarray) -> float:
    if name == "scores" and expected.ndim == 2:
        # One class more than asked for was kept.
        expected = expected[:, : received.shape[-1]]
    if expected.shape != received.shape:
        return np.inf
    difference = received.astype(np.float64) - expected
    if name == "projection":
        axes = tuple(range(1, expected.ndim))
        lengths = np.sqrt((np.square(expected, dtype=np.float64)).sum(axis=axes))
        far = np.sqrt(np.square(difference).sum(axis=axes)) / np.where(lengths > 0, lengths, 1)
        return float(far.max(initial=0))
    scale = max(1.0, float(np.abs(expected).max(initial=0))) if name == "activation" else 1.0
    return float(np.abs(difference).max(initial=0)) / scale


def _same(
    name: str,
    expected: np.ndarray,
    received: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    tolerance: float,
) -> tuple[bool, float, str]:
    """Compares names and numbers of units; classes of equal scores may change places."""
    if expected.ndim == 2 and name == "labels":
        expected = expected[:, : received.shape[-1]]
        scores = outputs["scores"]
        gaps = np.abs(np.diff(scores, axis=1, append=np.inf, prepend=np.inf))
        free = (np.minimum(gaps[:, :-1], gaps[:, 1:]) <= 2 * tolerance)[:, : expected.shape[1]]
    else:
        free = np.zeros(expected.shape, bool)
    if expected.shape != received.shape:
        return False, np.inf, f"{name} have the shape {received.shape}, not {expected.shape}"
    wrong = (expected != received) & ~free
    if not wrong.any():
        return True, 0.0, f"{name} are equal"
    where = tuple(np.argwhere(wrong)[0])
    return False, np.inf, f"{name} are {received[where]!s} in place of {expected[where]!s}"

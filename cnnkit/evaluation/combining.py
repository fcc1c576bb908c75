"""From the scores of many looks at an image to its log probabilities, in NumPy.

Logarithms throughout: a softmax over a thousand classes underflows, and equal zeros have no order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the softmax over the last axis, float64.

    Example:
        >>> np.exp(log_softmax(np.array([0.0, 0.0])))
        array([0.5, 0.5])
    """
    scores = np.asarray(scores, np.float64)
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_mean(logs: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Returns the logarithm of the mean, over `axis`, of what `logs` are the logarithms of."""
    largest = logs.max(axis=axis, keepdims=True)
    mean = np.exp(logs - largest).mean(axis=axis)
    return np.squeeze(largest, axis) + np.log(mean)


def posterior(scores: np.ndarray, average: str) -> np.ndarray:
    """Averages the looks at each image at one scale.

    Args:
        scores: (n, crops, flips, classes), logits up to a constant for each look.
        average: `"probabilities"` averages those of all looks; `"scores"` averages the scores over
            the crops, and the probabilities that follow over the flips.

    Returns:
        (n, classes) float64, log probabilities.

    Example:
        >>> scores = np.log([[[[0.8, 0.2]], [[0.4, 0.6]]]])  # one image, two crops
        >>> np.exp(posterior(scores, "probabilities")).round(3)
        array([[0.6, 0.4]])
        >>> np.exp(posterior(scores, "scores")).round(3)
        array([[0.62, 0.38]])
    """
    if average == "scores":
        return log_mean(log_softmax(scores.mean(axis=1, dtype=np.float64)), axis=1)
    return log_mean(log_softmax(scores), axis=(1, 2))


def mixed(posteriors: Sequence[np.ndarray]) -> np.ndarray:
    """Averages the probabilities of several posteriors, (n, classes) log probabilities each."""
    return log_mean(np.stack(posteriors), axis=0) if len(posteriors) > 1 else posteriors[0]

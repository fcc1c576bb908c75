"""Combine the scores of views and networks, and keep a few numbers of each image's prediction.

Some fifty bytes are kept per image: of its probabilities, only the largest ones and that of its
class. Everything is computed with logarithms: the softmax over a thousand classes underflows, and
equal zeros cannot be ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnkit._files import make_folder
from cnnkit._staging import staged_file
from cnnkit._untrusted.npy_arrays import load_npz
from cnnkit.errors import DataError, RunError

TOP = 5


@dataclass
class Predictions:
    """Predictions for n images by the m networks of an ensemble.

    Attributes:
        ranks: (m, n) int32, rank of the true class by each network, 0 for the most probable.
        rank: (n,) int32, rank of the true class by the ensemble.
        top: (n, 5) int32, the most probable classes in order; fewer if there are fewer classes.
        top_logs: (n, 5) float32, their log probabilities.
        right_logs: (n,) float32, log probability of the true class.
        done: Number of images that are predicted, the first ones.
    """

    ranks: np.ndarray
    rank: np.ndarray
    top: np.ndarray
    top_logs: np.ndarray
    right_logs: np.ndarray
    done: int = 0

    @classmethod
    def empty(cls, images: int, members: int, classes: int) -> Predictions:
        """Return the state before the first image."""
        top = min(TOP, classes)
        return cls(
            np.zeros((members, images), np.int32),
            np.zeros(images, np.int32),
            np.zeros((images, top), np.int32),
            np.zeros((images, top), np.float32),
            np.zeros(images, np.float32),
        )

    def add(self, logs: Sequence[np.ndarray], labels: np.ndarray) -> None:
        """Add the predictions for the next images.

        Args:
            logs: Log probabilities by each network, (n, classes).
            labels: (n,) the true classes.

        Raises:
            RunError: If a log probability is not finite.
        """
        rows = slice(self.done, self.done + len(labels))
        for ranks, own in zip(self.ranks, logs, strict=True):
            ranks[rows] = label_ranks(own, labels)
        all_logs = average_log_probabilities(logs)
        if not np.isfinite(all_logs).all():
            raise RunError(
                f"The network gives no finite scores for an image of {self.done} to "
                f"{self.done + len(labels) - 1}",
                received="NaN or infinity",
                hint="Its weights may have diverged: look at the losses of its training",
            )
        self.rank[rows] = label_ranks(all_logs, labels)
        top = np.argsort(-all_logs, axis=1, kind="stable")[:, : self.top.shape[1]]
        self.top[rows] = top
        self.top_logs[rows] = np.take_along_axis(all_logs, top, axis=1)
        self.right_logs[rows] = np.take_along_axis(all_logs, labels[:, None], axis=1)[:, 0]
        self.done += len(labels)

    def save(self, path: Path) -> None:
        """Write the predictions atomically.

        Raises:
            RunError: If the file cannot be written.
        """
        make_folder(path.parent)
        with staged_file(path) as staging, staging.open("wb") as file:
            np.savez(file, **vars(self))

    def load(self, path: Path, classes: int) -> None:
        """Read predictions that `save` wrote; ignore a damaged file or one of another evaluation.

        Args:
            path: The file.
            classes: Number of classes.
        """
        mine = {name: np.asarray(value) for name, value in vars(self).items()}
        size = sum(array.nbytes for array in mine.values())
        try:
            arrays = load_npz(path, max_bytes=size)
        except DataError:
            return
        if {name: (array.shape, array.dtype) for name, array in arrays.items()} != {
            name: (array.shape, array.dtype) for name, array in mine.items()
        }:
            return
        done = int(arrays["done"])
        indices = (arrays["ranks"], arrays["rank"], arrays["top"])
        logs = (arrays["top_logs"], arrays["right_logs"])
        if (
            0 <= done <= len(self.rank)
            and all(((array >= 0) & (array < classes)).all() for array in indices)
            and all(np.isfinite(array[:done]).all() for array in logs)
        ):
            vars(self).update(arrays, done=done)


def label_ranks(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the rank of the true class in each row, 0 for the largest value.

    Of equal values, the one of the lower class ranks first.

    Args:
        values: (n, classes).
        labels: (n,) the true classes.

    Returns:
        (n,) int.

    Example:
        >>> label_ranks(np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]]), np.array([2, 2]))
        array([1, 1])
    """
    own = np.take_along_axis(values, labels[:, None], axis=1)
    lower_class = np.arange(values.shape[1]) < labels[:, None]
    return ((values > own) | ((values == own) & lower_class)).sum(axis=1)


def aggregate_views(scores: np.ndarray, average: str) -> np.ndarray:
    """Average the predictions for the views of each image at one scale.

    Args:
        scores: (n, crops, flips, classes), logits up to a constant for each view.
        average: `"probabilities"` averages those of all views; `"scores"` averages the scores over
            the crops, then the probabilities over the flips.

    Returns:
        (n, classes) float64, log probabilities.

    Example:
        >>> scores = np.log([[[[0.8, 0.2]], [[0.4, 0.6]]]])  # one image, two crops
        >>> np.exp(aggregate_views(scores, "probabilities")).round(3)
        array([[0.6, 0.4]])
        >>> np.exp(aggregate_views(scores, "scores")).round(3)
        array([[0.62, 0.38]])
    """
    if average == "scores":
        return log_mean(log_softmax(scores.mean(axis=1, dtype=np.float64)), axis=1)
    return log_mean(log_softmax(scores), axis=(1, 2))


def average_log_probabilities(logs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the log of the mean of probabilities, from (n, classes) log probabilities each."""
    return log_mean(np.stack(logs), axis=0) if len(logs) > 1 else logs[0]


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax over the last axis, float64.

    Example:
        >>> np.exp(log_softmax(np.array([0.0, 0.0])))
        array([0.5, 0.5])
    """
    scores = np.asarray(scores, np.float64)
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_mean(logs: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the logarithm of the mean of `exp(logs)` over `axis`."""
    largest = logs.max(axis=axis, keepdims=True)
    mean = np.exp(logs - largest).mean(axis=axis)
    return np.squeeze(largest, axis) + np.log(mean)

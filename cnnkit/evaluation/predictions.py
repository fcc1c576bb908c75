"""What is kept of every image: some fifty bytes, and no probabilities but the largest."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnkit._files import make_folder, staged_file
from cnnkit.errors import RunError


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


def aggregate_views(scores: np.ndarray, average: str) -> np.ndarray:
    """Averages the looks at each image at one scale.

    Args:
        scores: (n, crops, flips, classes), logits up to a constant for each look.
        average: `"probabilities"` averages those of all looks; `"scores"` averages the scores over
            the crops, and the probabilities that follow over the flips.

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


def average_log_probabilities(posteriors: Sequence[np.ndarray]) -> np.ndarray:
    """Averages the probabilities of several posteriors, (n, classes) log probabilities each."""
    return log_mean(np.stack(posteriors), axis=0) if len(posteriors) > 1 else posteriors[0]


TOP = 5


@dataclass
class Predictions:
    """The answers to n images by the m networks of an ensemble.

    Attributes:
        ranks: (m, n) int32, the place of the right class, 0 for the most probable, by each network.
        rank: (n,) int32, by all of them together.
        top: (n, 5) int32, the most probable classes, the first one first; fewer where there are
            fewer classes.
        top_logs: (n, 5) float32, their log probabilities.
        right_logs: (n,) float32, the log probability of the right class.
        done: Images that are answered, the first ones.
    """

    ranks: np.ndarray
    rank: np.ndarray
    top: np.ndarray
    top_logs: np.ndarray
    right_logs: np.ndarray
    done: int = 0

    @classmethod
    def none(cls, images: int, members: int, classes: int) -> Predictions:
        """Returns the answers before the first image."""
        top = min(TOP, classes)
        return cls(
            np.zeros((members, images), np.int32),
            np.zeros(images, np.int32),
            np.zeros((images, top), np.int32),
            np.zeros((images, top), np.float32),
            np.zeros(images, np.float32),
        )

    def add(self, logs: Sequence[np.ndarray], labels: np.ndarray) -> None:
        """Answers the next images.

        Args:
            logs: Of each network, (n, classes) log probabilities.
            labels: (n,) the right classes.

        Raises:
            RunError: If a network gives no numbers.
        """
        place = slice(self.done, self.done + len(labels))
        for row, own in zip(self.ranks, logs, strict=True):
            row[place] = label_ranks(own, labels)
        all_logs = average_log_probabilities(logs)
        if not np.isfinite(all_logs).all():
            raise RunError(
                "The network gives no finite scores",
                received="NaN or infinity for an image",
                hint="Its weights may have diverged: look at the losses of its training",
            )
        self.rank[place] = label_ranks(all_logs, labels)
        top = np.argsort(-all_logs, axis=1, kind="stable")[:, : self.top.shape[1]]
        self.top[place] = top
        self.top_logs[place] = np.take_along_axis(all_logs, top, axis=1)
        self.right_logs[place] = np.take_along_axis(all_logs, labels[:, None], axis=1)[:, 0]
        self.done += len(labels)

    def save(self, path: Path) -> None:
        """Writes the state whole or not at all.

        Raises:
            RunError: If it cannot be written.
        """
        make_folder(path.parent)
        with staged_file(path) as aside, aside.open("wb") as file:
            np.savez(file, **vars(self))

    def load(self, path: Path) -> None:
        """Takes over a state that `save` wrote; one that is torn or does not fit is left alone."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in vars(self)}
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return
        if all(arrays[name].shape == np.shape(value) for name, value in vars(self).items()):
            vars(self).update(arrays, done=int(arrays["done"]))


def label_ranks(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the place of the right class in each row, 0 for the largest value.

    Of equal values the one of the lower class comes first.

    Example:
        >>> label_ranks(np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]]), np.array([2, 2]))
        array([1, 1])
    """
    own = np.take_along_axis(values, labels[:, None], axis=1)
    before = np.arange(values.shape[1]) < labels[:, None]
    return ((values > own) | ((values == own) & before)).sum(axis=1)

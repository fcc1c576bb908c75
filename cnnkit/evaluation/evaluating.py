"""How often trained networks are wrong, by a protocol of the papers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data import Split, naming_broken_images
from cnnkit.data.views import View, view_batches
from cnnkit.errors import DataError, UsageError
from cnnkit.evaluation.answers import Answers
from cnnkit.evaluation.combining import mixed, posterior
from cnnkit.evaluation.members import Member, dense_network, member_of, score_function
from cnnkit.evaluation.protocols import Protocol, check_average, find_protocol
from cnnkit.evaluation.results import Evaluation, summarize
from cnnkit.evaluation.scoring import Scorer

# Scores are collected for some images, which then are answered: for as many as take this much.
WINDOW_BYTES = 32 * 2**20
MOST_IN_WINDOW = 512
SECONDS_BETWEEN_SAVES = 20.0


def evaluate(
    models: keras.Model | Member | Sequence[keras.Model | Member],
    split: Split,
    labels: Sequence[str],
    *,
    protocol: str = "center",
    scales: Sequence[int] | None = None,
    average: str | None = None,
    square: bool | None = None,
    batch_size: int = 64,
    strategy: tf.distribute.Strategy | None = None,
    state: str | Path | None = None,
    progress: Callable[[int], object] = lambda images: None,
) -> Evaluation:
    """Counts the errors of a network, or of several whose probabilities are averaged.

    Every image is decoded once. Memory does not depend on the number of images, but for some fifty
    bytes for each. The counts depend neither on the batch size nor on the number of replicas.

    `protocol` is one of

    - `"center"`: the centre crop;
    - `"ten-crop"`: four corners and the centre of the central square, and their mirror images
      (Krizhevsky et al. 2012, section 4.1);
    - `"dense"`: the head as convolutions over the whole image and its mirror image (Simonyan &
      Zisserman 2014, section 3.2);
    - `"multi-crop"`: a grid of 5 x 5 crops over the whole image, and their mirror images;
    - `"dense+multi-crop"`: the mean of the two.

    Args:
        models: One classifier or several, (n, h, h, 3) RGB 0..255 -> (n, classes).
        split: Labelled images.
        labels: Names of the classes.
        protocol: How the networks look at an image.
        scales: Shorter sides of the rescaled image, in pixels; None is the network's own size. A
            `Member` has its own.
        average: What is averaged over the places of an image, its crops or the positions of its
            map of scores: `"probabilities"`, or `"scores"` before the softmax. None follows the
            papers: probabilities of crops, scores of maps. Probabilities are averaged over mirror
            images, scales and networks in any case.
        square: Whether the crops stay in the central square; None follows the papers.
        batch_size: Images of the network's own size that it sees at a time, over all replicas; of
            larger ones it sees fewer.
        strategy: Replicas to share the work; the models were made in its scope.
        state: File that holds how far it came, every 20 seconds: where it exists, it goes on from
            there. It is left behind when all is done.
        progress: Called with the number of images that were answered since the last call.

    Raises:
        UsageError: If a model has another number of classes, or the protocol cannot be applied.
        DataError: If an image cannot be decoded, or there are none.
        RunError: If a network gives no finite scores.

    Example:
        >>> from cnnkit import alexnet, evaluate
        >>> from cnnkit.data import load_source
        >>> digits = load_source("digits")
        >>> model = alexnet(classes=10, input_shape=(64, 64, 3))
        >>> result = evaluate(model, digits.splits["test"], digits.labels, batch_size=128)
        >>> result.images, result.top1_interval[0] < result.top1_error < result.top1_interval[1]
        (359, True)
    """
    how = find_protocol(protocol)
    check_average(average)
    if square is not None:
        how = dataclasses.replace(how, square=square)
    if batch_size < 1:
        raise UsageError("A batch holds images", expected="at least 1", received=batch_size)
    given = [models] if isinstance(models, (keras.Model, Member)) else list(models)
    members = [one if isinstance(one, Member) else member_of(one, scales) for one in given]
    for member in members:
        _check_classes(member, labels)
    if not len(split):
        raise DataError("There are no images to evaluate")
    eyes = [
        _Eyes(member, how, average, strategy or tf.distribute.get_strategy(), batch_size)
        for member in members
    ]
    answers = Answers.none(len(split), len(members), len(labels))
    if state is not None:
        answers.load(Path(state))
    progress(answers.done)
    saved = time.monotonic()
    for logs in _windows(split, eyes, batch_size, len(labels), answers.done):
        answers.add(logs, split.labels[answers.done : answers.done + len(logs[0])])
        if state is not None and time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
            answers.save(Path(state))
            saved = time.monotonic()
        progress(len(logs[0]))
    known = [(member.name, member.scales) for member in members]
    return summarize(answers, split.labels, split.names, labels, known)


class _Eyes:
    """One network looking at images as the protocol says."""

    def __init__(
        self,
        member: Member,
        protocol: Protocol,
        average: str | None,
        strategy: tf.distribute.Strategy,
        batch_size: int,
    ) -> None:
        self.views = member.views(protocol)
        self.flips = 1 + protocol.flip
        self._crops = average or "probabilities"
        self._columns = member.columns
        pixels = batch_size * member.size**2
        self._scorers: dict[bool, Scorer] = {}
        with strategy.scope():
            for whole in {view.size is None for view in self.views}:
                network = dense_network(member) if whole else member.model
                function = score_function(network, flip=protocol.flip, average=average or "scores")
                self._scorers[whole] = Scorer(function, strategy, pixels, any_shape=whole)

    def empty(self, images: int, classes: int) -> list[np.ndarray]:
        """Returns room for the scores of a window of images, view by view."""
        sides = [(images, view.count, self.flips, classes) for view in self.views]
        return [np.empty(side, np.float32) for side in sides]

    def look(self, taken: dict[View, tf.Tensor], scores: list[np.ndarray]) -> None:
        """Looks at some images; `scores`, view by view, are written no later than at `finish`."""
        for view, target in zip(self.views, scores, strict=True):
            images = taken[view]
            rows = tf.reshape(images, (-1, *images.shape[2:]))
            target = target.reshape(-1, *target.shape[2:])
            self._scorers[view.size is None].add(rows, target)

    def finish(self) -> None:
        """Scores what is waiting."""
        for scorer in self._scorers.values():
            scorer.finish()

    def logs(self, scores: list[np.ndarray]) -> np.ndarray:
        """Returns the log probabilities of a window of images, (n, classes)."""
        kinds: dict[bool, list[np.ndarray]] = {}
        for view, values in zip(self.views, scores, strict=True):
            kinds.setdefault(view.size is None, []).append(posterior(values, self._crops))
        logs = mixed([mixed(scales) for scales in kinds.values()])
        return logs if self._columns is None else logs[:, self._columns]


def _windows(
    split: Split, eyes: Sequence[_Eyes], batch_size: int, classes: int, first: int
) -> Iterator[list[np.ndarray]]:
    """Yields the log probabilities by each network of one window of images after the other."""
    views = list(dict.fromkeys(view for one in eyes for view in one.views))
    together = max(1, batch_size // sum(view.count for view in views))
    if any(view.size is None for view in views):
        together = 1
    looks = sum(view.count * one.flips for one in eyes for view in one.views)
    room = min(WINDOW_BYTES // (4 * looks * classes), MOST_IN_WINDOW)
    # Where windows begin follows from the arguments alone: whoever goes on with a state sees the
    # same batches.
    window = max(1, room // together) * together
    with naming_broken_images(split):
        batches = iter(view_batches(split, views, images=together, first=first))
        for start in range(first, len(split), window):
            count = min(window, len(split) - start)
            scores = [one.empty(count, classes) for one in eyes]
            place = 0
            while place < count:
                taken = dict(zip(views, next(batches), strict=True))
                end = place + next(iter(taken.values())).shape[0]
                for one, own in zip(eyes, scores, strict=True):
                    one.look(taken, [values[place:end] for values in own])
                place = end
            for one in eyes:
                one.finish()
            yield [one.logs(own) for one, own in zip(eyes, scores, strict=True)]


def _check_classes(member: Member, labels: Sequence[str]) -> None:
    classes = member.model.output_shape[-1]
    if classes != len(labels):
        raise UsageError(
            "The model and the dataset have different classes",
            expected=f"{classes} classes",
            received=f"{len(labels)}: {', '.join(labels[:5])} ...",
        )

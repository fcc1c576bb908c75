"""How often trained networks are wrong, by a protocol of the papers."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data import Split, report_undecodable
from cnnkit.data.multi_crop import CropSpec, crop_batches
from cnnkit.errors import DataError, UsageError
from cnnkit.evaluation.ensemble import (
    EvaluatedModel,
    dense_network,
    evaluated_model,
    score_function,
)
from cnnkit.evaluation.metrics import Evaluation, summarize_predictions
from cnnkit.evaluation.predictions import Predictions, aggregate_views, average_log_probabilities
from cnnkit.evaluation.protocols import TestProtocol, check_average, find_protocol
from cnnkit.training.distribute import shard_batch

# How many batches of whole images may wait for others of their shape.
BATCHES_WAITING = 2


class BatchScorer:
    """Collects images of one network until a batch is full; images of one shape share a batch.

    Args:
        function: (n, h, w, 3) -> (n, flips, classes), as `score_function` gives it.
        strategy: Where it runs.
        pixels: Pixels of a batch, over all replicas; an image that has more is one by itself.
        any_shape: Whether images of many shapes share a graph. Crops are of one, and Keras's
            `Flatten` takes no batch of unknown size.
    """

    def __init__(
        self,
        function: Callable,
        strategy: tf.distribute.Strategy,
        pixels: int,
        *,
        any_shape: bool,
    ) -> None:
        self._strategy = strategy
        self._replicas = strategy.num_replicas_in_sync
        self._pixels = pixels
        # Without AutoGraph, which would look through the whole network.
        self._function = tf.function(function, reduce_retracing=any_shape, autograph=False)
        self._waiting: dict[tuple[int, int], deque[tuple[tf.Tensor, np.ndarray]]] = {}

    def add(self, images: tf.Tensor, scores: np.ndarray) -> None:
        """Takes images; their scores are written into `scores` no later than at `finish`.

        Args:
            images: (n, h, w, 3) float32.
            scores: (n, flips, classes) float32, written to.
        """
        shape = tuple(images.shape[1:3])
        self._waiting.setdefault(shape, deque()).append((images, scores))
        while self._rows(shape) >= self._most(shape):
            self._run(shape)
        while sum(map(self._size, self._waiting)) > BATCHES_WAITING * self._pixels:
            self._run(max(self._waiting, key=self._size))

    def finish(self) -> None:
        """Scores what is waiting."""
        for shape in list(self._waiting):
            while self._waiting.get(shape):
                self._run(shape)

    def _rows(self, shape: tuple[int, int]) -> int:
        return sum(len(target) for _, target in self._waiting.get(shape, ()))

    def _size(self, shape: tuple[int, int]) -> int:
        return self._rows(shape) * shape[0] * shape[1]

    def _most(self, shape: tuple[int, int]) -> int:
        return max(1, self._pixels // (shape[0] * shape[1]))

    def _run(self, shape: tuple[int, int]) -> None:
        waiting, room = self._waiting[shape], self._most(shape)
        parts, targets = [], []
        while waiting and room:
            images, target = waiting.popleft()
            if len(target) > room:
                waiting.appendleft((images[room:], target[room:]))
                images, target = images[:room], target[:room]
            parts.append(images)
            targets.append(target)
            room -= len(target)
        if not waiting:
            del self._waiting[shape]
        values = self._scores(tf.concat(parts, axis=0) if len(parts) > 1 else parts[0])
        for target in targets:
            target[:] = values[: len(target)]
            values = values[len(target) :]

    def _scores(self, images: tf.Tensor) -> np.ndarray:
        if self._replicas == 1:
            return self._function(images).numpy()
        rows = images.shape[0]
        # Every replica takes as many rows; those that fill up are thrown away afterwards.
        missing = -rows % self._replicas
        images = tf.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        batch = shard_batch({"images": images}, self._strategy)
        values = self._strategy.run(self._function, args=(batch["images"],))
        parts = self._strategy.experimental_local_results(values)
        return np.concatenate([part.numpy() for part in parts])[:rows]


# Scores are collected for some images, which then are answered: for as many as take this much.
WINDOW_BYTES = 32 * 2**20
MAX_WINDOW_IMAGES = 512
SECONDS_BETWEEN_SAVES = 20.0


def evaluate(
    models: keras.Model | EvaluatedModel | Sequence[keras.Model | EvaluatedModel],
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

    - `"center"`: the center crop;
    - `"ten-crop"`: four corners and the center of the central square, and their mirror images
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
            `EvaluatedModel` has its own.
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
        >>> from cnnkit.data import load_dataset
        >>> digits = load_dataset("digits")
        >>> model = alexnet(classes=10, input_shape=(64, 64, 3))
        >>> result = evaluate(model, digits.splits["test"], digits.class_names, batch_size=128)
        >>> result.images, result.top1_interval[0] < result.top1_error < result.top1_interval[1]
        (359, True)
    """
    how = find_protocol(protocol)
    check_average(average)
    if square is not None:
        how = dataclasses.replace(how, square=square)
    if batch_size < 1:
        raise UsageError("A batch holds images", expected="at least 1", received=batch_size)
    given = [models] if isinstance(models, (keras.Model, EvaluatedModel)) else list(models)
    members = [
        one if isinstance(one, EvaluatedModel) else evaluated_model(one, scales) for one in given
    ]
    for member in members:
        _check_classes(member, labels)
    if not len(split):
        raise DataError("There are no images to evaluate")
    eyes = [
        _ModelScorer(member, how, average, strategy or tf.distribute.get_strategy(), batch_size)
        for member in members
    ]
    answers = Predictions.none(len(split), len(members), len(labels))
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
    return summarize_predictions(answers, split.labels, split.names, labels, known)


class _ModelScorer:
    """One network looking at images as the protocol says."""

    def __init__(
        self,
        member: EvaluatedModel,
        protocol: TestProtocol,
        average: str | None,
        strategy: tf.distribute.Strategy,
        batch_size: int,
    ) -> None:
        self.views = member.views(protocol)
        self.flips = 1 + protocol.flip
        self._crops = average or "probabilities"
        self._columns = member.columns
        pixels = batch_size * member.size**2
        self._scorers: dict[bool, BatchScorer] = {}
        with strategy.scope():
            for whole in {view.size is None for view in self.views}:
                network = dense_network(member) if whole else member.model
                function = score_function(network, flip=protocol.flip, average=average or "scores")
                self._scorers[whole] = BatchScorer(function, strategy, pixels, any_shape=whole)

    def empty(self, images: int, classes: int) -> list[np.ndarray]:
        """Returns room for the scores of a window of images, view by view."""
        sides = [(images, view.count, self.flips, classes) for view in self.views]
        return [np.empty(side, np.float32) for side in sides]

    def look(self, taken: dict[CropSpec, tf.Tensor], scores: list[np.ndarray]) -> None:
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
            kinds.setdefault(view.size is None, []).append(aggregate_views(values, self._crops))
        logs = average_log_probabilities(
            [average_log_probabilities(scales) for scales in kinds.values()]
        )
        return logs if self._columns is None else logs[:, self._columns]


def _windows(
    split: Split, eyes: Sequence[_ModelScorer], batch_size: int, classes: int, first: int
) -> Iterator[list[np.ndarray]]:
    """Yields the log probabilities by each network of one window of images after the other."""
    views = list(dict.fromkeys(view for one in eyes for view in one.views))
    together = max(1, batch_size // sum(view.count for view in views))
    if any(view.size is None for view in views):
        together = 1
    looks = sum(view.count * one.flips for one in eyes for view in one.views)
    room = min(WINDOW_BYTES // (4 * looks * classes), MAX_WINDOW_IMAGES)
    # Where windows begin follows from the arguments alone: whoever goes on with a state sees the
    # same batches.
    window = max(1, room // together) * together
    with report_undecodable(split):
        batches = iter(crop_batches(split, views, batch_size=together, start=first))
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


def _check_classes(member: EvaluatedModel, labels: Sequence[str]) -> None:
    classes = member.model.output_shape[-1]
    if classes != len(labels):
        raise UsageError(
            "The model and the dataset have different classes",
            expected=f"{classes} classes",
            received=f"{len(labels)}: {', '.join(labels[:5])} ...",
        )

"""Evaluate networks by a test protocol.

Images stream through in windows. Each image is decoded once, every network scores its views in
batches, and the scores of a window become log probabilities, of which `Predictions` keeps a few
numbers per image.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnkit._deprecation import renamed_argument
from cnnkit.data import Split, report_undecodable
from cnnkit.data.multi_crop import CropSpec, crop_batches
from cnnkit.errors import DataError, UsageError
from cnnkit.evaluation.ensemble import (
    EvaluatedModel,
    ScoreFunction,
    dense_network,
    evaluated_model,
    score_function,
)
from cnnkit.evaluation.metrics import Evaluation, summarize_predictions
from cnnkit.evaluation.predictions import Predictions, aggregate_views, average_log_probabilities
from cnnkit.evaluation.protocols import TestProtocol, check_average, find_protocol
from cnnkit.models.class_names import class_count
from cnnkit.training.distribute import local_results, shard_batch

# Scores are collected for as many images as fit in this memory, at most for this many.
WINDOW_BYTES = 32 * 2**20
MAX_WINDOW_IMAGES = 512
SECONDS_BETWEEN_SAVES = 20.0
# Batches of whole images that may wait for more images of their shape.
BATCHES_WAITING = 2


@renamed_argument("square", "central_square")
@renamed_argument("labels", "class_names")
def evaluate(
    models: keras.Model | EvaluatedModel | Sequence[keras.Model | EvaluatedModel],
    split: Split,
    class_names: Sequence[str],
    *,
    protocol: str = "center",
    scales: Sequence[int] | None = None,
    average: str | None = None,
    central_square: bool | None = None,
    batch_size: int = 64,
    strategy: tf.distribute.Strategy | None = None,
    state: str | Path | None = None,
    progress: Callable[[int], object] = lambda images: None,
) -> Evaluation:
    """Evaluate a network, or an ensemble whose probabilities are averaged.

    Every image is decoded once. The memory does not depend on the number of images, except for some
    fifty bytes per image. The counts depend neither on the batch size nor on the number of
    replicas.

    `protocol` is one of

    - `"center"`: the center crop;
    - `"ten-crop"`: four corners and the center of the central square, and their mirror images
      (Krizhevsky et al. 2012, section 4.1);
    - `"dense"`: the head as convolutions over the whole image and its mirror image (Simonyan &
      Zisserman 2014, section 3.2);
    - `"multi-crop"`: a grid of 5 x 5 crops over the whole image, and their mirror images;
    - `"dense+multi-crop"`: the mean of the two.

    Args:
        models: One classifier or several, (n, h, w, 3) RGB 0..255 -> (n, classes), or (n, h, w, 1)
            gray. One with a single sigmoid or logit has two classes.
        split: Labeled images.
        class_names: Class names.
        protocol: Name of the test protocol.
        scales: Shorter sides of the rescaled image, in pixels; None for the network's own size. An
            `EvaluatedModel` has its own scales.
        average: What is averaged over the crops of an image or over the positions of its map of
            scores: `"probabilities"`, or `"scores"` before the softmax. None follows the papers:
            probabilities of crops, scores of maps. Over mirror images, scales and networks,
            probabilities are averaged in any case.
        central_square: Whether the crops stay inside the central square; None follows the papers.
        batch_size: Number of images of the network's own size in a batch, over all replicas;
            batches of larger images have fewer.
        strategy: Strategy whose replicas share the work; the models were created in its scope.
        state: File in which the progress is saved every 20 seconds. If it exists, the evaluation
            continues from there. It is not deleted at the end.
        progress: Called with the number of images that were evaluated since the last call.

    Returns:
        The errors.

    Raises:
        UsageError: If a model has another number of classes, or the protocol cannot be applied.
        DataError: If an image cannot be decoded, or `split` is empty.
        RunError: If the scores of a network are not finite.

    Example:
        >>> from cnnkit import alexnet, evaluate
        >>> from cnnkit.data import load_dataset
        >>> digits = load_dataset("digits")
        >>> model = alexnet(classes=10, input_shape=(64, 64, 3))
        >>> result = evaluate(model, digits.splits["test"], digits.class_names, batch_size=128)
        >>> result.images, result.top1_interval[0] < result.top1_error < result.top1_interval[1]
        (359, True)
    """
    protocol_used = find_protocol(protocol)
    check_average(average)
    if central_square is not None:
        protocol_used = dataclasses.replace(protocol_used, central_square=central_square)
    if batch_size < 1:
        raise UsageError("`batch_size` must be at least 1", received=batch_size)
    given = [models] if isinstance(models, (keras.Model, EvaluatedModel)) else list(models)
    members = [
        one if isinstance(one, EvaluatedModel) else evaluated_model(one, scales) for one in given
    ]
    for member in members:
        _check_classes(member, class_names)
    if not len(split):
        raise DataError("`split` must contain at least one image")
    strategy = strategy or tf.distribute.get_strategy()
    scorers = [
        _ModelScorer(member, protocol_used, average, strategy, batch_size) for member in members
    ]
    predictions = Predictions.empty(len(split), len(members), len(class_names))
    if state is not None:
        predictions.load(Path(state), len(class_names))
    progress(predictions.done)
    saved = time.monotonic()
    for logs in _windows(split, scorers, batch_size, len(class_names), predictions.done):
        count = len(logs[0])
        predictions.add(logs, split.labels[predictions.done : predictions.done + count])
        if state is not None and time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
            predictions.save(Path(state))
            saved = time.monotonic()
        progress(count)
    tested = [(member.name, member.scales) for member in members]
    return summarize_predictions(predictions, split.labels, split.names, class_names, tested)


def _check_classes(member: EvaluatedModel, class_names: Sequence[str]) -> None:
    classes = class_count(member.model)
    if classes != len(class_names):
        raise UsageError(
            f"The classes of model {member.name!r} do not fit `class_names`",
            expected=f"{classes} classes",
            received=f"{len(class_names)}: {', '.join(class_names[:5])} ...",
        )


def _windows(
    split: Split, scorers: Sequence[_ModelScorer], batch_size: int, classes: int, first: int
) -> Iterator[list[np.ndarray]]:
    """Yield the log probabilities by each network, one window of images after the other."""
    views = list(dict.fromkeys(view for scorer in scorers for view in scorer.views))
    images_at_once = max(1, batch_size // sum(view.count for view in views))
    if any(view.size is None for view in views):
        images_at_once = 1
    rows = sum(view.count * scorer.flips for scorer in scorers for view in scorer.views)
    room = min(WINDOW_BYTES // (4 * rows * classes), MAX_WINDOW_IMAGES)
    # The windows depend on the arguments alone, so that an evaluation that is continued has the
    # same batches.
    window = max(1, room // images_at_once) * images_at_once
    with report_undecodable(split):
        batches = iter(crop_batches(split, views, batch_size=images_at_once, start=first))
        for start in range(first, len(split), window):
            count = min(window, len(split) - start)
            scores = [scorer.empty_scores(count, classes) for scorer in scorers]
            done = 0
            while done < count:
                images = dict(zip(views, next(batches), strict=True))
                end = done + next(iter(images.values())).shape[0]
                for scorer, own in zip(scorers, scores, strict=True):
                    scorer.add(images, [values[done:end] for values in own])
                done = end
            for scorer in scorers:
                scorer.finish()
            yield [
                scorer.log_probabilities(own) for scorer, own in zip(scorers, scores, strict=True)
            ]


class _ModelScorer:
    """Score images with one network by a protocol."""

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
        self._average_of_crops = average or "probabilities"
        self._columns = member.columns
        pixels = batch_size * member.size**2
        self._scorers: dict[bool, BatchScorer] = {}
        with strategy.scope():
            for whole in {view.size is None for view in self.views}:
                network = dense_network(member) if whole else member.model
                function = score_function(network, flip=protocol.flip, average=average or "scores")
                self._scorers[whole] = BatchScorer(function, strategy, pixels, any_shape=whole)

    def empty_scores(self, images: int, classes: int) -> list[np.ndarray]:
        """Return uninitialized arrays for the scores of a window, one per view."""
        shapes = [(images, view.count, self.flips, classes) for view in self.views]
        return [np.empty(shape, np.float32) for shape in shapes]

    def add(self, images: dict[CropSpec, tf.Tensor], scores: list[np.ndarray]) -> None:
        """Score images; `scores`, one array per view, are written no later than in `finish`."""
        for view, target in zip(self.views, scores, strict=True):
            crops = images[view]
            rows = tf.reshape(crops, (-1, *crops.shape[2:]))
            target = target.reshape(-1, *target.shape[2:])
            self._scorers[view.size is None].add(rows, target)

    def finish(self) -> None:
        """Score the images that wait for a full batch."""
        for scorer in self._scorers.values():
            scorer.finish()

    def log_probabilities(self, scores: list[np.ndarray]) -> np.ndarray:
        """Return the log probabilities, (n, classes), of a window of images."""
        kinds: dict[bool, list[np.ndarray]] = {}
        for view, values in zip(self.views, scores, strict=True):
            logs = aggregate_views(values, self._average_of_crops)
            kinds.setdefault(view.size is None, []).append(logs)
        mean = average_log_probabilities(
            [average_log_probabilities(scales) for scales in kinds.values()]
        )
        return mean if self._columns is None else mean[:, self._columns]


class BatchScorer:
    """Score images in full batches; images of one shape share a batch.

    Args:
        function: (n, h, w, 3) -> (n, flips, classes), result of `score_function`.
        strategy: The distribution strategy.
        pixels: Number of pixels of a batch, over all replicas; a larger image is a batch by itself.
        any_shape: Whether images of all shapes share a graph. Crops have one shape, and the Keras
            layer `Flatten` accepts no batch of unknown size.
    """

    def __init__(
        self,
        function: ScoreFunction,
        strategy: tf.distribute.Strategy,
        pixels: int,
        *,
        any_shape: bool,
    ) -> None:
        self._strategy = strategy
        self._replicas = strategy.num_replicas_in_sync
        self._pixels = pixels
        # Without AutoGraph, which would convert the whole network.
        self._function = tf.function(function, reduce_retracing=any_shape, autograph=False)
        self._waiting: dict[tuple[int, int], deque[tuple[tf.Tensor, np.ndarray]]] = {}

    def add(self, images: tf.Tensor, scores: np.ndarray) -> None:
        """Add images; their scores are written into `scores` no later than in `finish`.

        Args:
            images: (n, h, w, 3) float32.
            scores: (n, flips, classes) float32, written to.
        """
        shape = tuple(images.shape[1:3])
        self._waiting.setdefault(shape, deque()).append((images, scores))
        while self._rows(shape) >= self._batch_rows(shape):
            self._run(shape)
        while sum(map(self._waiting_pixels, self._waiting)) > BATCHES_WAITING * self._pixels:
            self._run(max(self._waiting, key=self._waiting_pixels))

    def finish(self) -> None:
        """Score the images that wait for a full batch."""
        for shape in list(self._waiting):
            while self._waiting.get(shape):
                self._run(shape)

    def _rows(self, shape: tuple[int, int]) -> int:
        return sum(len(target) for _, target in self._waiting.get(shape, ()))

    def _waiting_pixels(self, shape: tuple[int, int]) -> int:
        return self._rows(shape) * shape[0] * shape[1]

    def _batch_rows(self, shape: tuple[int, int]) -> int:
        return max(1, self._pixels // (shape[0] * shape[1]))

    def _run(self, shape: tuple[int, int]) -> None:
        waiting, room = self._waiting[shape], self._batch_rows(shape)
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
        # Every replica takes the same number of rows; the padding is dropped afterwards.
        missing = -rows % self._replicas
        images = tf.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        batch = shard_batch({"images": images}, self._strategy)
        values = self._strategy.run(self._function, args=(batch["images"],))
        parts = local_results(self._strategy, values)
        return np.concatenate([part.numpy() for part in parts])[:rows]

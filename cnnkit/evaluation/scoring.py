"""Scoring rows of images in batches, on one replica or on many."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from cnnkit.training.strategy import shared_out

# How many batches of whole images may wait for others of their shape.
BATCHES_WAITING = 2


class Scorer:
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
        batch = shared_out({"images": images}, self._strategy)
        values = self._strategy.run(self._function, args=(batch["images"],))
        parts = self._strategy.experimental_local_results(values)
        return np.concatenate([part.numpy() for part in parts])[:rows]

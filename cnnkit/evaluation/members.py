"""The networks of an evaluation, and what each has to see of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data.views import View
from cnnkit.errors import UsageError
from cnnkit.evaluation.protocols import Protocol
from cnnkit.models import logits_of, to_fully_convolutional
from cnnkit.models.surgery.chain import chain_of
from cnnkit.models.surgery.shapes import maps

# The smallest probability that has a logarithm in float32.
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Member:
    """A network and how it is tested.

    Attributes:
        name: What its figures are listed under.
        model: A classifier, (n, h, w, 3) RGB 0..255 -> (n, classes).
        scales: Shorter sides of the rescaled image, in pixels.
        size: Side of the crops that it takes, in pixels.
        columns: Its outputs in the order of the evaluation's classes; None as they are.
    """

    name: str
    model: keras.Model
    scales: tuple[int, ...]
    size: int
    columns: tuple[int, ...] | None = None

    def views(self, protocol: Protocol) -> list[View]:
        """Returns what the network sees of an image: crops at each scale, then whole images.

        Raises:
            UsageError: If a scale is too small.
        """
        views = []
        if protocol.places:
            places, square = protocol.places, protocol.square
            views += [View(scale, self.size, places, square) for scale in self.scales]
        if protocol.dense:
            views += [View(scale) for scale in self.scales]
        return views


def member_of(model: keras.Model, scales: Sequence[int] | None, name: str | None = None) -> Member:
    """Returns a model as a member, at the size that it is made for.

    Raises:
        UsageError: If it takes images of any size, so that its crops are unknown.
    """
    _, height, width, *_ = model.input_shape
    if height is None or height != width:
        raise UsageError(
            f"Model {model.name!r} does not tell which size of square its crops have",
            expected="a model for images of one size, height equal to width",
            received=f"{height} x {width}",
            hint="Pass a Member with its size",
        )
    return Member(name or model.name, model, tuple(scales or (height,)), height)


def dense_network(member: Member) -> keras.Model:
    """Returns the network for images of any size.

    Raises:
        UsageError: If it cannot be made of the member's, or a scale is too small for it.
    """
    model = member.model
    network = model if model.input_shape[1] is None else to_fully_convolutional(model)
    for layer in network.layers:
        mean = getattr(layer, "mean", None)
        if getattr(mean, "ndim", 1) > 1 and mean.shape[0] > 1:
            raise UsageError(
                f"The network {member.name} subtracts a mean image of {mean.shape[0]} x "
                f"{mean.shape[1]} pixels, which fits no larger image",
                expected="a network with a mean colour for dense testing",
                hint="Test it with crops, or train it with --mean dataset",
            )
    try:
        chain = chain_of(network)
    except UsageError:
        return network
    for scale in member.scales:
        maps(chain, (scale, scale))
    return network


def score_function(network: keras.Model, *, flip: bool, average: str):
    """Returns a graph function from images to the scores of the classes.

    Args:
        network: (n, h, w, 3) -> (n, classes), or (n, rows, columns, classes).
        flip: Whether to look at the mirror images too.
        average: Of a map of scores, what is averaged over its positions: `"scores"` or
            `"probabilities"`.

    Returns:
        A function (n, h, w, 3) float32 -> (n, flips, classes) float32: logits, up to a constant
        for each look.
    """
    read = _reading(network)

    def scores(images):
        values = read(images)
        if values.shape.rank != 4:
            return values
        if average == "scores":
            return tf.reduce_mean(values, axis=(1, 2))
        return _log_mean_probability(values)

    def looks(images):
        mirrored = [scores(tf.reverse(images, [2]))] if flip else []
        return tf.stack([scores(images), *mirrored], axis=1)

    return looks


def _reading(network: keras.Model):
    """Returns the function that gives logits; of a softmax that cannot be taken off, logarithms."""
    try:
        inner, fused = keras.Model(network.input, logits_of(network)), False
    except UsageError:
        inner, fused = network, True

    def read(images):
        values = tf.cast(inner(images, training=False), tf.float32)
        # The logits less a constant, which no softmax sees.
        return tf.math.log(tf.maximum(values, SMALLEST)) if fused else values

    return read


def _log_mean_probability(scores: tf.Tensor) -> tf.Tensor:
    logs = tf.nn.log_softmax(scores)
    positions = tf.cast(tf.shape(scores)[1] * tf.shape(scores)[2], tf.float32)
    return tf.reduce_logsumexp(logs, axis=(1, 2)) - tf.math.log(positions)

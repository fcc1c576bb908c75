"""tf-keras-vis, and networks in a form in which it goes wrong nowhere.

Given any model, it fails on a sequential one, stops at one inside another, and takes a softmax that
is a layer for the end without a word. So it is given a model of two or three layers without weights
of their own: the image, the maps that are asked about, the logits. What happens between them is the
network's own pass, so that the network is neither copied nor changed and may be of any kind.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.models.graph import Node
from cnnkit.models.receptive_field import behaves_like
from cnnkit.visualize.classifier import Classifier
from cnnkit.visualize.forward import (
    LAYERS_WITH_ACTIVATION,
    call_layer,
    check_input_covers_layers,
    forward_from,
    forward_to,
    is_relu,
    preactivation,
)

# Name of the layer of maps in what `model_up_to_layer` returns.
MAPS = "maps"

# An environment variable by which it does fewer steps than it was asked for.
_FEWER_STEPS = "TF_KERAS_VIS_MAX_STEPS"


def import_tf_keras_vis(name: str) -> ModuleType:
    """Returns a module of tf-keras-vis, imported when one of its methods is asked for.

    Raises:
        UsageError: If it cannot be imported, or is told to do fewer steps than it is asked for.
    """
    if _FEWER_STEPS in os.environ:
        raise UsageError(
            f"The environment variable {_FEWER_STEPS} cuts methods short without a word",
            received=os.environ[_FEWER_STEPS],
            hint="Unset it",
        )
    try:
        with warnings.catch_warnings():
            # 0.8.7 imports names that SciPy has moved, and some of its own that it has.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(f"tf_keras_vis.{name}")
    except ImportError as error:
        raise UsageError(
            f"tf-keras-vis does not answer: {error}",
            hint="Install it with: pip install tf-keras-vis",
        ) from error


def without_softmax(nodes: Sequence[Node], known: Mapping[int, Any]):
    """Returns what the last of `nodes` makes before its rectifier, softmax or sigmoid, float32.

    Args:
        nodes: From the image to a layer.
        known: Values by their numbers, where the pass begins: `{0: images}`.
    """
    end = nodes[-1]
    below = [node for node in nodes if node.output in end.inputs and node.output not in known]
    made = forward_from(_needed(nodes[:-1], known, below), known, below)
    values = {**known, **{node.output: one for node, one in zip(below, made, strict=True)}}
    inputs = [values[value] for value in end.inputs]
    check_input_covers_layers(end.layer, inputs, known.get(0))
    if behaves_like(end.layer, LAYERS_WITH_ACTIVATION):
        return _float(preactivation(end.layer, *inputs))
    if is_relu(end.layer):
        return _float(inputs[0])
    if getattr(end.layer, "activation", None) not in (None, keras.activations.linear):
        raise UsageError(
            f"What layer {end.layer.name!r} makes before its activation is not known",
            expected="a dense layer, a convolution or an activation",
            received=type(end.layer).__name__,
        )
    return _float(call_layer(end.layer, inputs, last=True))


def logits_after(network: Classifier, known: Mapping[int, Any]):
    """Returns what the last softmax or sigmoid of a network takes, (n, classes) float32."""
    return without_softmax(network.nodes, known)


def model_up_to_logits(network: Classifier, shape: tuple[int, ...], classes: int) -> keras.Model:
    """Returns images -> logits, as `model_up_to_layer` does."""
    image = keras.Input(shape, dtype="float32")
    logits = _layer(lambda x: logits_after(network, {0: x}), (classes,))(image)
    return _Cut([image], logits)


def model_up_to_layer(
    network: Classifier, at: Node, shape: tuple[int, ...], maps: tuple[int, ...], classes: int
) -> keras.Model:
    """Returns images -> maps -> logits; the layer of the maps is called `MAPS`.

    Args:
        network: The network.
        at: The node that makes the maps.
        shape: (h, w, c) of the images.
        maps: (h, w, c) of the maps.
        classes: Number of logits.
    """
    image = keras.Input(shape, dtype="float32")
    below = network.graph.ancestors(at)
    made = _layer(lambda x: _float(forward_to(below, x, [at])[0]), maps, name=MAPS)(image)
    # Where paths lead past the maps, the logits need the image as well.
    above = _layer(lambda x: logits_after(network, {0: x[0], at.output: x[1]}), (classes,))
    return _Cut([image], above([image, made]))


def model_up_to(
    nodes: Sequence[Node], shape: tuple[int, ...], made: tuple[int, ...]
) -> keras.Model:
    """Returns images -> what the last of `nodes` makes before its activation."""
    image = keras.Input(shape, dtype="float32")
    values = _layer(lambda x: without_softmax(nodes, {0: x}), made)(image)
    return _Cut([image], values)


class _Cut(keras.Model):
    """Answers without progress bars, and eagerly: a compiled pass picks other switches.

    Its inputs are a list, because that is what tf-keras-vis calls it with.
    """

    def predict(self, x, batch_size: int = 32):
        [images] = x
        starts = range(0, len(images), batch_size)
        parts = [self([tf.constant(images[i : i + batch_size])]).numpy() for i in starts]
        return np.concatenate(parts)


def _layer(function, shape: tuple[int, ...], name: str | None = None) -> keras.layers.Layer:
    return keras.layers.Lambda(function, output_shape=shape, name=name, dtype="float32")


def _float(values):
    return tf.cast(values, tf.float32)


def _needed(
    nodes: Sequence[Node], known: Mapping[int, Any], ends: Sequence[Node]
) -> tuple[Node, ...]:
    """Returns the nodes that lead from the known values to the ends."""
    needed = {end.output for end in ends}
    kept = []
    for node in reversed(nodes):
        if node.output in needed and node.output not in known:
            needed.update(node.inputs)
            kept.append(node)
    return tuple(kept[::-1])

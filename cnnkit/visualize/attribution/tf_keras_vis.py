"""An adapter to tf-keras-vis: its modules, and models in the form that it handles correctly.

tf-keras-vis 0.8.7 fails on a sequential model, does not see layers of a model used as a layer, and
silently takes a softmax layer for the logits. So it is given a model of two or three layers
without weights of their own: the image, the feature maps, the logits. They run the forward pass of
the original model, which is neither copied nor changed and may be of any kind.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.models.graph import Node
from cnnkit.visualize.classifier import Classifier
from cnnkit.visualize.forward import (
    forward_from,
    forward_to,
)

# Name of the layer of feature maps in the model that `model_up_to_layer` returns.
MAPS = "maps"

# An environment variable that makes tf-keras-vis do fewer steps than requested.
_MAX_STEPS = "TF_KERAS_VIS_MAX_STEPS"


def import_tf_keras_vis(name: str) -> ModuleType:
    """Imports a module of tf-keras-vis, which is an optional dependency.

    Raises:
        UsageError: If it cannot be imported, or an environment variable limits its steps.
    """
    if _MAX_STEPS in os.environ:
        raise UsageError(
            f"The environment variable {_MAX_STEPS} silently reduces the number of steps",
            received=os.environ[_MAX_STEPS],
            hint="Unset it",
        )
    try:
        with warnings.catch_warnings():
            # 0.8.7 imports names that SciPy and tf-keras-vis itself have moved.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(f"tf_keras_vis.{name}")
    except ImportError as error:
        raise UsageError(
            f"tf-keras-vis cannot be imported: {error}",
            hint="Install it with: pip install tf-keras-vis",
        ) from error


def without_activation(nodes: Sequence[Node], known: Mapping[int, Any]) -> tf.Tensor:
    """Returns the output of the last of `nodes` before its ReLU, softmax or sigmoid, float32.

    Args:
        nodes: From the image to a layer.
        known: Values by their numbers, where the pass begins: `{0: images}`.

    Raises:
        UsageError: If the layer has an activation that cannot be separated from it.
    """
    end = nodes[-1]
    needed = {end.output}
    remaining: list[Node] = []
    for node in reversed(nodes):
        if node.output in needed and (node.output not in known or node is end):
            needed.update(node.inputs)
            remaining.insert(0, node)
    return _as_float(forward_from(remaining, known, [end], logits=[end])[0])


def logits_after(classifier: Classifier, known: Mapping[int, Any]) -> tf.Tensor:
    """Returns the logits of the classes, (n, classes) float32: see `Classifier.class_logits`."""
    return classifier.class_logits(without_activation(classifier.nodes, known))


def model_up_to_logits(classifier: Classifier, shape: tuple[int, ...], classes: int) -> keras.Model:
    """Returns a model images -> logits.

    Args:
        classifier: The original model.
        shape: (h, w, c) of the images.
        classes: Number of logits.
    """
    image = keras.Input(shape, dtype="float32")
    logits = _function_layer(lambda x: logits_after(classifier, {0: x}), (classes,))(image)
    return _EagerModel([image], logits)


def model_up_to_layer(
    classifier: Classifier,
    node: Node,
    shape: tuple[int, ...],
    maps_shape: tuple[int, ...],
    classes: int,
    select: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> keras.Model:
    """Returns a model images -> maps -> logits, whose layer of maps is called `MAPS`.

    Args:
        classifier: The original model.
        node: The node that makes the maps.
        shape: (h, w, c) of the images.
        maps_shape: (h, w, c) of the maps.
        classes: Number of logits.
        select: Function from the classes' logits to those of the new model.
    """
    image = keras.Input(shape, dtype="float32")
    below = classifier.graph.ancestors(node)
    maps = _function_layer(
        lambda x: _as_float(forward_to(below, x, [node])[0]), maps_shape, name=MAPS
    )(image)
    # Where paths bypass the maps, the logits need the image as well.
    above = _function_layer(
        lambda x: select(logits_after(classifier, {0: x[0], node.output: x[1]})), (classes,)
    )
    return _EagerModel([image], above([image, maps]))


class _EagerModel(keras.Model):
    """A model whose `predict` has no progress bar and runs eagerly.

    A compiled pass picks other switches. The inputs are a list, as tf-keras-vis passes them.
    """

    def predict(self, x: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        [images] = x
        starts = range(0, len(images), batch_size)
        parts = [self([tf.constant(images[i : i + batch_size])]).numpy() for i in starts]
        return np.concatenate(parts)


def _function_layer(
    function: Callable[[Any], tf.Tensor], shape: tuple[int, ...], name: str | None = None
) -> keras.layers.Layer:
    return keras.layers.Lambda(function, output_shape=shape, name=name, dtype="float32")


def _as_float(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32)

"""A model as a classifier, whether it ends in logits or in probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy.special import expit, softmax

from cnnkit.errors import UsageError
from cnnkit.layers import CeilMaxPooling2D, Dropout, SubtractMean
from cnnkit.models.class_names import class_count
from cnnkit.models.graph import Graph, Node, build_graph
from cnnkit.models.layer_window import behaves_like
from cnnkit.models.logits import output_activation
from cnnkit.visualize.rule_support import is_linear

# Layers whose weights may be as large as an image.
_STATISTICS = (SubtractMean, keras.layers.BatchNormalization, keras.layers.Normalization)
# Layers that pick, average or pass on the values of a map.
_PASSING = (
    CeilMaxPooling2D,
    Dropout,
    keras.layers.AveragePooling2D,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.Identity,
    keras.layers.MaxPooling2D,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)


@dataclass(frozen=True)
class Classifier:
    """A model with one output, (n, classes), or (n, 1) for two classes.

    A model with one unit is a classifier of two classes, as Keras's binary labels number them:
    class 1 (yes) has the unit's logit z and the probability sigmoid(z), class 0 (no) has -z and
    1 - sigmoid(z).

    Attributes:
        graph: The model's graph.
        nodes: From the image to the classes, all of them plain.
        exclusive: Whether the classes share one probability: the model ends in a softmax or in the
            logits of one. If not, every class has a probability of its own, by a sigmoid.
        classes: Number of classes.
    """

    graph: Graph
    nodes: tuple[Node, ...]
    exclusive: bool
    classes: int

    @property
    def end(self) -> Node:
        """The node that makes the output."""
        return self.nodes[-1]

    def class_logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns (n, classes) float32 logits for outputs of `end` before its activation."""
        logits = tf.cast(outputs, tf.float32)
        return logits if logits.shape[-1] == self.classes else tf.concat([-logits, logits], axis=-1)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Returns the probabilities, (n, classes), for logits of `class_logits`."""
        return softmax(logits, axis=-1) if self.exclusive else expit(logits)


def as_classifier(model: keras.Model) -> Classifier:
    """Returns a model as a `Classifier`.

    Raises:
        UsageError: If it does not end in a softmax, a sigmoid or logits, or has several outputs.
    """
    graph = build_graph(model)
    end = graph.output
    [output] = model.outputs
    activation = output_activation(end.layer)
    nodes = graph.ancestors(end)
    if len(output.shape) != 2 or not (activation or _are_logits(nodes)):
        raise UsageError(
            f"Model {model.name!r} is not a classifier",
            expected="one output (n, classes): a softmax, a sigmoid, or logits of a linear layer",
            received=f"{end.layer.name} of shape {tuple(output.shape)}",
        )
    classes = class_count(model)
    exclusive = activation == "softmax" or (activation is None and output.shape[-1] > 1)
    return Classifier(graph, nodes, exclusive, classes)


def _are_logits(nodes: Sequence[Node]) -> bool:
    """Returns True if the last of `nodes` is linear, and is no mean or sum of probabilities."""
    by_value = {node.output: node for node in nodes}
    waiting = [nodes[-1]]
    while waiting:
        node = waiting.pop()
        if output_activation(node.layer) is not None:
            return False
        if node is nodes[-1] and not is_linear(node):
            return False
        if is_linear(node) and not getattr(node.layer, "weights", ()):
            waiting += [by_value[value] for value in node.inputs if value in by_value]
    return True


def last_maps(
    classifier: Classifier, shapes: Mapping[Node, tuple[int, ...]], *, pooled: bool
) -> Node:
    """Returns the node of the last feature maps on the way from the image to the classes.

    It may be of any kind: a convolution, its normalization or activation, a sum of branches. Every
    path from the image to the classes leads through it.

    Args:
        classifier: The classifier.
        shapes: (h, w, c) of the output of every node that has maps.
        pooled: Whether the maps may be those of the final pooling or dropout.

    Raises:
        UsageError: If there are no maps with several positions, or those of several branches lead
            to the classes side by side.
    """
    nodes = classifier.nodes
    all_maps = [node for node in nodes if node in shapes and shapes[node][0] * shapes[node][1] > 1]
    learned = next((i for i, node in enumerate(nodes) if has_kernel(node)), len(nodes))
    # Before the first filters is the image.
    maps = [node for node in all_maps if node in nodes[learned:]] or all_maps
    if not maps:
        raise UsageError(
            f"Model {classifier.graph.name!r} has no feature maps on the way to the classes",
            expected="a layer with an output (n, h, w, c) of several positions",
            hint="Give the name of a `layer`",
        )
    joint = [node for node in _passed_by_every_path(nodes) if node in maps]
    if not joint or shapes[joint[-1]][:2] != shapes[maps[-1]][:2]:
        used_by_maps = {value for node in maps for value in node.inputs}
        ends = [node.layer.name for node in maps if node.output not in used_by_maps]
        raise UsageError(
            f"`layer` must be given: the maps of several layers of {classifier.graph.name!r} lead"
            " to the classes side by side",
            expected=f"for example one of {', '.join(ends)}",
        )
    makers = {node.output: node for node in maps}
    chosen = joint[-1]
    while not pooled and behaves_like(chosen.layer, _PASSING) and chosen.inputs[0] in makers:
        chosen = makers[chosen.inputs[0]]
    return chosen


def has_kernel(node: Node) -> bool:
    """Returns True for a convolution, a dense layer, or another layer with learned filters."""
    if isinstance(node.layer, _STATISTICS):
        return False
    return any(len(weight.shape) > 1 for weight in getattr(node.layer, "weights", ()))


def _passed_by_every_path(nodes: Sequence[Node]) -> list[Node]:
    """Returns the nodes that every path from the image to the last of `nodes` leads through."""
    last_use = {value: i for i, node in enumerate(nodes) for value in node.inputs}
    passed, latest = [], last_use.get(0, -1)
    for i, node in enumerate(nodes):
        # No value from before is used after this node.
        if latest <= i:
            passed.append(node)
        latest = max(latest, last_use.get(node.output, -1))
    return passed

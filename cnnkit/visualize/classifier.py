"""A model as a classifier, whether it ends in logits or in probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy.special import expit, softmax

from cnnkit.errors import UsageError
from cnnkit.models.class_names import class_count
from cnnkit.models.graph import Graph, Node, build_graph
from cnnkit.models.logits import output_activation
from cnnkit.visualize.rule_support import is_linear


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

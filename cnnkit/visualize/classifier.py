"""A model as a classifier, whether it ends in logits or in probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy.special import expit, softmax

from cnnkit.errors import UsageError
from cnnkit.models.class_names import class_count
from cnnkit.models.graph import Graph, Node, build_graph
from cnnkit.models.logits import output_activation
from cnnkit.models.receptive_field import behaves_like

_DENSE = (keras.layers.Dense,)


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
        UsageError: If it does not end in a softmax, a sigmoid or the logits of a dense layer, has
            several outputs, or a layer is called with extra arguments.
    """
    graph = build_graph(model)
    end = graph.output
    [output] = model.outputs
    activation = output_activation(end.layer)
    is_linear = getattr(end.layer, "activation", None) in (None, keras.activations.linear)
    is_dense = is_linear and behaves_like(end.layer, _DENSE)
    if len(output.shape) != 2 or not (activation or is_dense):
        raise UsageError(
            f"Model {model.name!r} is not a classifier",
            expected="one output (n, classes): a softmax, a sigmoid, or a dense layer of logits",
            received=f"{end.layer.name} of shape {tuple(output.shape)}",
        )
    nodes = graph.ancestors(end)
    for node in nodes:
        if not node.is_pure:
            raise UsageError(
                f"Layer {node.layer.name!r} is called with extra arguments, which are not"
                " supported here",
                received=type(node.layer).__name__,
            )
    classes = class_count(model)
    exclusive = activation == "softmax" or (activation is None and output.shape[-1] > 1)
    return Classifier(graph, nodes, exclusive, classes)

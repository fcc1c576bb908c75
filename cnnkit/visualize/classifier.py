"""A model as a classifier, whether it ends in logits or in probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from scipy.special import softmax

from cnnkit.errors import UsageError
from cnnkit.models.graph import Graph, Node, build_graph
from cnnkit.models.receptive_field import behaves_like
from cnnkit.visualize.forward import is_softmax

_DENSE = (keras.layers.Dense,)
_LINEAR = (None, keras.activations.linear)
_SIGMOIDS = (keras.activations.sigmoid, keras.ops.sigmoid)


@dataclass(frozen=True)
class Classifier:
    """A model with one output, (n, classes).

    Attributes:
        graph: The model's graph.
        nodes: From the image to the classes, all of them plain.
        exclusive: Whether the classes are mutually exclusive: the model ends in a softmax or in the
            logits of one. If not, every class has a probability of its own, by a sigmoid.
    """

    graph: Graph
    nodes: tuple[Node, ...]
    exclusive: bool

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probabilities, (n, classes), for the last node's output of `forward_to`."""
        return softmax(outputs, axis=-1) if self.exclusive else outputs


def as_classifier(model: keras.Model) -> Classifier:
    """Returns a model as a `Classifier`.

    Raises:
        UsageError: If it does not end in a softmax, a sigmoid or the logits of a dense layer, has
            several outputs, or a layer is called with extra arguments.
    """
    graph = build_graph(model)
    shapes = [tuple(output.shape) for output in model.outputs]
    end = graph.nodes[-1] if graph.nodes else None
    activation = getattr(end and end.layer, "activation", None)
    exclusive = end is not None and (
        is_softmax(end.layer)
        or is_softmax(activation)
        or (activation in _LINEAR and shapes[0][-1] != 1 and behaves_like(end.layer, _DENSE))
    )
    is_classifier = exclusive or activation in _SIGMOIDS
    if end is None or [len(shape) for shape in shapes] != [2] or not is_classifier:
        raise UsageError(
            f"Model {model.name!r} is not a classifier",
            expected="one output (n, classes): a softmax, a sigmoid, or a dense layer of logits",
            received=f"{end and end.layer.name} of shape {', '.join(map(str, shapes))}",
        )
    nodes = graph.ancestors(end)
    for node in nodes:
        if not node.is_pure:
            raise UsageError(
                f"Layer {node.layer.name!r} is called with extra arguments, which are not"
                " supported here",
                received=type(node.layer).__name__,
            )
    return Classifier(graph, nodes, bool(exclusive))

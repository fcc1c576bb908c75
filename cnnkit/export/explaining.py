"""The deconvnet inside a served graph: what in an image made a unit fire."""

from __future__ import annotations

import tensorflow as tf

from cnnkit.errors import UsageError
from cnnkit.layers import backward_rule
from cnnkit.models.graph import Graph, graph_of
from cnnkit.visualize.forward import check_calls, forward

RULE = "deconvnet"


class Explainer:
    """Projects the strongest unit of a layer down to the pixels, as `cnnkit.visualize.deconvnet`.

    The way down is a part of the graph that it is called in, so a saved graph needs nothing of ours
    to take it.

    Args:
        graph: Of the network.
        layer: Name of a layer, or None for the end of the network: its classes.

    Raises:
        UsageError: If there is no such layer, or one on the way cannot follow the deconvnet's rule.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.export.explaining import Explainer
        >>> from cnnkit.models.graph import graph_of
        >>> graph = graph_of(alexnet(input_shape=(64, 64, 3), classes=2))
        >>> sorted(Explainer(graph, "conv5")(tf.zeros((1, 64, 64, 3))))
        ['activation', 'position', 'projection', 'unit']
    """

    def __init__(self, graph: Graph, layer: str | None) -> None:
        last = graph.calls[-1] if layer is None else graph.call(layer)
        self.layer = last.layer.name
        self._calls = graph.up_to(last)
        with backward_rule(RULE):
            check_calls(self._calls, RULE)

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the projections of the strongest units, and where they are.

        Args:
            images: (n, h, w, 3) float32, as the network takes them.

        Returns:
            `projection` (n, h, w, 3) float32, not rectified; `unit` (n,) int64; `activation` (n,)
            float32; `position` (n, 2) int64, row and column in the feature map, (n, 0) for a dense
            layer.
        """
        with backward_rule(RULE), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            maps = forward(self._calls, images)
            flat = tf.reshape(maps, (-1, tf.reduce_prod(tf.shape(maps)[1:])))
            strongest = tf.argmax(flat, axis=1)
            activations = tf.gather(flat, strongest, batch_dims=1)
        projection = tape.gradient(activations, images)
        shape = tf.cast(tf.shape(maps), tf.int64)
        places = []
        rest = strongest // shape[-1]
        for axis in range(len(maps.shape) - 2, 0, -1):
            places.insert(0, rest % shape[axis])
            rest = rest // shape[axis]
        return {
            "projection": tf.cast(projection, tf.float32),
            "unit": strongest % shape[-1],
            "activation": tf.cast(activations, tf.float32),
            "position": tf.stack(places, axis=1)
            if places
            else tf.zeros((tf.shape(maps)[0], 0), tf.int64),
        }


def can_explain(model) -> bool:
    """Tells whether the deconvnet goes through a network from its classes to the pixels."""
    try:
        Explainer(graph_of(model), None)
    except UsageError:
        return False
    return True

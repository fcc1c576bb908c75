"""Layers that do not learn: which they are, and their outputs, computed once for each image.

Yosinski et al. 2014, section 3, and Zeiler & Fergus 2013, section 5.2, keep the lower layers of a
trained network and train the rest. If the layers below a point are all kept, what they return for
an image never changes, so that it is computed once and not in every epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit._network_names import match_frozen
from cnnkit.data.pipeline import gathered_batches
from cnnkit.layers import Dropout
from cnnkit.models import logits_tensor
from cnnkit.models.graph import Node, build_graph

# Largest size of the outputs that are kept in memory.
MAX_OUTPUT_BYTES = 2 << 30


def frozen_layers(model: keras.Model, patterns: Sequence[str]) -> frozenset[str]:
    """Return the names of the layers with weights that patterns freeze.

    Args:
        model: The network.
        patterns: Names or patterns of layers; the last one that fits a layer decides, and `!`
            before it means that the layer learns.

    Raises:
        UsageError: If a pattern fits no layer, or no layer is left to learn.

    Example:
        >>> from cnnkit import alexnet
        >>> model = alexnet(input_shape=(64, 64, 3), classes=5)
        >>> sorted(frozen_layers(model, ["*", "!fc?"]))
        ['conv1', 'conv2', 'conv3', 'conv4', 'conv5']
    """
    names = [layer.name for layer in model.layers if layer.trainable_weights]
    return match_frozen(names, patterns, model.name)


@dataclass(eq=False)
class FrozenPart:
    """The layers of a network below the first one that learns, and their outputs in memory.

    Attributes:
        layers: Names of the frozen layers of the part, those without weights too.
        model: From images to the output of the last of them.
        rest: From that output to the logits, with the network's weights.
        outputs: Outputs of the images, by split and number of the augmentation.
        boxes: Boxes of the crops of a split that has boxes, by the same.
    """

    layers: tuple[str, ...]
    model: keras.Model
    rest: keras.Model
    outputs: dict[tuple[str, int], tf.Tensor] = field(default_factory=dict)
    boxes: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    @property
    def bytes_per_image(self) -> int:
        """Bytes of the output for one image."""
        output = self.model.outputs[0]
        size = keras.backend.standardize_dtype(output.dtype)
        return int(np.prod(output.shape[1:])) * tf.as_dtype(size).size

    def compute(
        self,
        key: tuple[str, int],
        batches: Iterator[dict[str, tf.Tensor]],
        progress: Callable[[int], object],
    ) -> None:
        """Compute and keep the outputs of the images of a split.

        Args:
            key: The split and the number of the augmentation.
            batches: Batches of the images in the order of the split.
            progress: Called with the number of images that are done.
        """
        rows, boxes, done = [], [], 0
        for batch in batches:
            kept = int(tf.reduce_sum(batch["weights"]))
            rows.append(self._forward(batch["images"])[:kept])
            if "boxes" in batch:
                boxes.append(batch["boxes"].numpy()[:kept])
            done += kept
            progress(done)
        if boxes:
            self.boxes[key] = np.concatenate(boxes)
        with tf.device("CPU:0"):
            self.outputs[key] = tf.concat(rows, axis=0)

    @tf.function(reduce_retracing=True)
    def _forward(self, images: tf.Tensor) -> tf.Tensor:
        return self.model(images, training=False)

    def batches(
        self, key: tuple[str, int], labels: np.ndarray, **position: Any
    ) -> Iterator[dict[str, tf.Tensor]]:
        """Return batches of the outputs under `images`, as `gathered_batches` cuts them."""
        return gathered_batches(self.outputs[key], labels, boxes=self.boxes.get(key), **position)


def split_frozen(model: keras.Model, frozen: frozenset[str]) -> FrozenPart | None:
    """Return the part of a network below all layers that learn; None if there is none.

    Args:
        model: The network.
        frozen: Names of the frozen layers, from `frozen_layers`.

    Example:
        >>> from cnnkit import alexnet
        >>> model = alexnet(input_shape=(64, 64, 3), classes=5)
        >>> split_frozen(model, frozenset({"conv1", "conv2"})).layers[-1]
        'pool2'
    """

    def is_fixed(node: Node) -> bool:
        layer = node.layer
        learns = bool(getattr(layer, "trainable_weights", ())) and layer.name not in frozen
        return not learns and not isinstance(layer, (Dropout, keras.layers.Dropout))

    nodes = build_graph(model).nodes
    last = None
    for place, node in enumerate(nodes):
        if not is_fixed(node):
            break
        above = {number for later in nodes[place + 1 :] for number in later.inputs}
        below = {0, *(before.output for before in nodes[:place])}
        # Everything above has to take what this call returns, and nothing from below it.
        if len(node.tensors) == 1 and not above & below:
            last = place
    if last is None or not any(node.layer.name in frozen for node in nodes[: last + 1]):
        return None
    [tensor] = nodes[last].tensors
    logits = logits_tensor(model)
    return FrozenPart(
        tuple(node.layer.name for node in nodes[: last + 1]),
        keras.Model(model.inputs[0], tensor),
        keras.Model(tensor, logits),
    )

"""A trained network as it is going to be served: its probabilities, its features, its dtype."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from cnnkit.errors import UsageError, unknown_name
from cnnkit.layers import SubtractMean
from cnnkit.models import get_layer, to_fully_convolutional
from cnnkit.models.graph import Graph, build_graph, read_nodes
from cnnkit.models.preprocessing import Preprocessing

# Types that the weights of an export can have.
DTYPES = ("float32", "bfloat16")
_WITH_KERNEL = (keras.layers.Conv2D, keras.layers.Dense)


@dataclass(frozen=True)
class ServedClassifier:
    """A classifier, and what is known of it.

    Attributes:
        graph: The graph of `model`, read once.
        side: Side of the square images that it was trained on.
        free: Whether it takes images of every height and width from `side` on.
        dtype: What it computes in: one of `DTYPES`.
        features: Name of the layer whose answer the logits are made of, or None.
    """

    graph: Graph
    side: int
    free: bool
    dtype: str
    features: str | None

    @property
    def model(self) -> keras.Model:
        """The model: (n, h, w, 3) -> (n, classes), or (n, rows, columns, classes) if `free`."""
        return self.graph.model

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the network does to images first, or None where it is not known."""
        for layer in self.model.layers:
            if isinstance(layer, SubtractMean):
                return Preprocessing(layer.mean, layer.std)
        return None

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(
            variable.value.shape.num_elements() * variable.value.dtype.size
            for variable in self.model.weights
        )


def prepare_classifier(
    model: keras.Model,
    *,
    dtype: str = "float32",
    fully_convolutional: bool = False,
    features: str | None = None,
) -> ServedClassifier:
    """Prepares a classifier for being served; `model` is left as it is.

    Raises:
        UsageError: If it takes no square images of one size, or cannot be changed as asked.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.export.classifier import prepare_classifier
        >>> prepare_classifier(alexnet(input_shape=(64, 64, 3), classes=2)).features
        'fc7'
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if len(model.inputs) != 1 or len(model.input_shape) != 4 or len(model.outputs) != 1:
        raise UsageError(
            "A classifier of images is exported",
            expected="one input (n, h, w, c) and one output",
            received=f"{len(model.inputs)} of shape {model.input_shape}, {len(model.outputs)}",
        )
    height, width, _ = model.input_shape[1:]
    if height is None or height != width:
        raise UsageError(
            "The exported model rescales images to a square",
            expected="a model built for one image size, height equal to width",
            received=f"{height} x {width}",
            hint="cnnkit.models.resize_input gives a model another size",
        )
    if fully_convolutional:
        model = to_fully_convolutional(model)
    if dtype == "bfloat16":
        model = _in_bfloat16(model)
    model = _ending_in_probabilities(model)
    features = get_layer(model, features).name if features else _features_of(model)
    return ServedClassifier(build_graph(model), height, fully_convolutional, dtype, features)


def _ending_in_probabilities(model: keras.Model) -> keras.Model:
    activation = getattr(model.layers[-1], "activation", None)
    is_linear = isinstance(model.layers[-1], _WITH_KERNEL) and (
        activation is None or activation is keras.activations.linear
    )
    if not is_linear:
        return model
    softmax = keras.layers.Softmax(name="probabilities", dtype="float32")
    return keras.Model(model.inputs[0], softmax(model.outputs[0]), name=model.name)


def _features_of(model: keras.Model) -> str | None:
    """Returns the name of the layer before the logits: fc7, or VGG's fc2, and so on."""
    weighted = [layer for layer in model.layers if isinstance(layer, _WITH_KERNEL)]
    passed = (keras.layers.Dropout, keras.layers.Flatten)
    if not weighted:
        return None
    nodes = {node.output: node for node in read_nodes(model, expand=False)}
    below = next(node for node in nodes.values() if node.layer is weighted[-1]).inputs[0]
    while below in nodes and isinstance(nodes[below].layer, passed):
        below = nodes[below].inputs[0]
    return nodes[below].layer.name if below in nodes else None


def _in_bfloat16(model: keras.Model) -> keras.Model:
    """Returns the network with weights and maps of 16 bits, but for its logits and what follows.

    A thousand probabilities that differ in the third digit would be equal in 8 bits of mantissa.
    """
    weighted = [layer.name for layer in model.layers if isinstance(layer, _WITH_KERNEL)]
    names = [layer.name for layer in model.layers]
    wide = set(names[names.index(weighted[-1]) :]) if weighted else set()

    def remade(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name not in wide and not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = "bfloat16"
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=remade)
    for old, new in zip(model.layers, copy.layers, strict=True):
        new.set_weights(old.get_weights())
        if isinstance(old, SubtractMean):
            new.set(old.mean, old.std)
    return copy

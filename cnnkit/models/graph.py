"""A model as the calls of its layers, in an order in which they can be computed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import keras

from cnnkit.errors import UsageError, unknown_name

# VGG's dense layers go by Caffe's names too.
ALIASES = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}


def get_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """Returns the layer called `name`; `fc6 fc7 fc8` also name VGG's `fc1 fc2 predictions`.

    Raises:
        UsageError: If there is no such layer; nearest names are offered.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models import get_layer
        >>> get_layer(vgg11(input_shape=(32, 32, 3)), "fc7").name
        'fc2'
    """
    layers = {layer.name: layer for layer in model.layers}
    for candidate in (name, ALIASES.get(name)):
        if candidate in layers:
            return layers[candidate]
    raise unknown_name("layer", name, layers)


def logits_tensor(model: keras.Model):
    """Returns the symbolic tensor of the logits: what a softmax at the end takes, else the output.

    Raises:
        UsageError: If the softmax is fused into the last layer, so that no tensor holds the logits.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models import logits_tensor
        >>> logits_tensor(vgg11(input_shape=(32, 32, 3))).shape
        (None, 1000)
    """
    last = model.layers[-1]
    if ends_in_softmax(last):
        return last.input
    if getattr(last, "activation", None) is keras.activations.softmax:
        raise UsageError(
            f"Layer {last.name!r} ends in a fused softmax, so its logits are no tensor",
            expected="a softmax in a layer of its own, or none",
        )
    return model.output


def ends_in_softmax(layer: keras.layers.Layer) -> bool:
    """Tells whether `layer` is a softmax and nothing else."""
    return isinstance(layer, keras.layers.Softmax) or (
        isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.softmax
    )


@dataclass(frozen=True)
class Node:
    """One call of one layer.

    Values are numbered; 0 is the image.

    Attributes:
        layer: What is called.
        inputs: The values that it takes.
        output: The value that it makes.
        plain: Whether it takes nothing but these values, and makes one.
    """

    layer: keras.Operation
    inputs: tuple[int, ...]
    output: int
    plain: bool


@dataclass(frozen=True)
class Graph:
    """What a model computes, models inside of it unfolded.

    Attributes:
        name: Name of the model.
        image_shape: (h, w, c); None where the image decides.
        calls: Every call of a layer, none before those whose values it takes.
    """

    name: str
    image_shape: tuple[int | None, ...]
    calls: tuple[Node, ...]

    def call(self, name: str) -> Node:
        """Returns the call of the layer called `name`, by VGG's other names too.

        Raises:
            UsageError: If there is no such layer, or it is called more than once.
        """
        count = Counter(call.layer.name for call in self.calls)
        for candidate in (name, ALIASES.get(name)):
            if count[candidate] > 1:
                raise UsageError(
                    f"Model {self.name!r} has {count[candidate]} outputs of a layer {candidate!r}",
                    expected="a layer whose name and call are the only ones",
                )
            if count[candidate]:
                return next(call for call in self.calls if call.layer.name == candidate)
        raise unknown_name("layer", name, count)

    def up_to(self, *ends: Node) -> tuple[Node, ...]:
        """Returns the calls that `ends` need, themselves among them; a single one is the last."""
        needed = {end.output for end in ends}
        kept = []
        for call in reversed(self.calls):
            if call.output in needed:
                needed.update(call.inputs)
                kept.append(call)
        return tuple(kept[::-1])


def build_graph(model: keras.Model) -> Graph:
    """Returns the calls of the layers of a functional or sequential model over images.

    Raises:
        UsageError: If the model is not built, or does not take one batch of images.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models.graph import build_graph
        >>> [call.layer.name for call in build_graph(vgg11(input_shape=(32, 32, 3))).calls][:2]
        ['preprocessing', 'block1_conv1']
    """
    try:
        inputs, outputs = model.inputs, model.outputs
        received = f"inputs of shape {', '.join(str(tuple(one.shape)) for one in inputs)}"
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"Model {getattr(model, 'name', model)!r} has no known graph of layers",
            expected="a functional or a built sequential model",
            received=type(model).__name__,
        ) from error
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise UsageError(
            f"Model {model.name!r} does not take images alone",
            expected="one input of shape (n, h, w, c)",
            received=received,
        )
    calls: list[Node] = []
    _read(outputs, {id(inputs[0]): 0}, calls)
    return Graph(model.name, tuple(inputs[0].shape[1:]), tuple(calls))


def _read(outputs, values: dict[int, int], calls: list[Node]) -> list[int]:
    """Appends the calls that make `outputs`; `values` numbers the tensors that are known."""
    # A stack of its own: deep networks would exceed Python's.
    waiting = list(outputs)
    while waiting:
        tensor = waiting[-1]
        if id(tensor) in values:
            waiting.pop()
            continue
        # Where Keras noted which call of which layer made a tensor: `layer.input` would not do, as
        # it refuses a layer that some other model uses as well.
        layer, index, _ = tensor._keras_history
        node = layer._inbound_nodes[index]
        missing = [one for one in node.input_tensors if id(one) not in values]
        if missing:
            waiting += missing
            continue
        given = [values[id(one)] for one in node.input_tensors]
        if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
            inner = dict(zip(map(id, layer.inputs), given, strict=True))
            made = _read(layer.outputs, inner, calls)
        else:
            # The image is value 0, so call number n makes value n.
            made = [len(calls) + 1] * len(node.outputs)
            plain = len(node.outputs) == 1 and _takes_nothing_else(node)
            calls.append(Node(layer, tuple(given), made[0], plain))
        values.update(zip(map(id, node.outputs), made, strict=True))
    return [values[id(tensor)] for tensor in outputs]


def _takes_nothing_else(node) -> bool:
    # None and False are what Keras fills in itself; training=True would be somebody's choice.
    rest = [*node.arguments.args[1:], *node.arguments.kwargs.values()]
    return all(value is None or value is False for value in rest)

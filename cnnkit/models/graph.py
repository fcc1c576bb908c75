"""Read the graph of a Keras model.

No other module of the package reads Keras's own records of a graph (`_keras_history`,
`_inbound_nodes` and their arguments, which Keras 3.15 keeps private). `build_graph` returns the
graph that everything else walks: build it once for a model and hand it on.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from cnnkit._network_outline import ALIASES
from cnnkit.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Node:
    """One call of one layer, or of one operation such as `x + y` or `keras.ops.relu(x)`.

    Attributes:
        layer: The layer or operation.
        inputs: Numbers of the values that the call takes. 0 is the model's input.
        output: Number of the value that the call makes. A call with several outputs makes a list
            of them; each is the value of a node of its own, named for example `split:0`.
        is_pure: Whether the call has one output, which depends on `inputs` alone: it has no further
            argument but `training`, which is False here as in `model.predict`.
        tensors: The symbolic outputs.
        record: Keras's record of the call; None for one output of a call with several.
    """

    layer: keras.Operation
    inputs: tuple[int, ...]
    output: int
    is_pure: bool
    tensors: tuple[keras.KerasTensor, ...] = field(compare=False, repr=False)
    record: Any = field(default=None, compare=False, repr=False)

    @property
    def operation(self) -> str | None:
        """Class of an operation of `keras.ops`, such as `"TrueDivide"`; None for a layer."""
        is_layer = isinstance(self.layer, keras.layers.Layer)
        return None if is_layer or self.record is None else type(self.layer).__name__

    @property
    def constants(self) -> list[Any]:
        """The arguments of the call that are not computed from the image, without None."""
        if self.record is None:
            return []
        given = keras.tree.flatten((self.record.arguments.args, self.record.arguments.kwargs))
        return [one for one in given if one is not None and not keras.backend.is_keras_tensor(one)]

    @property
    def demands_training(self) -> bool:
        """Whether the graph says `training=True` and that is not the layer's own default."""
        kwargs = self.record.arguments.kwargs if self.record else {}
        default = inspect.signature(self.layer.call).parameters.get("training")
        return kwargs.get("training") is True and not (default and default.default is True)

    @property
    def input_shapes(self) -> list[tuple[int | None, ...]]:
        """Symbolic shapes of the values that the call takes."""
        return [tuple(one.shape) for one in self.record.input_tensors] if self.record else []

    def call(self, inputs: Sequence[Any]) -> Any:
        """Return the output of the call for the values it takes, as `model.predict` computes it.

        Constants and the structure of the arguments are those of the user's graph. `training` is
        False, whatever the graph says: Keras itself replaces it in `predict`.
        """
        if self.record is None:
            return self.layer.call(*inputs)
        tensors = map(id, self.record.input_tensors)
        args, kwargs = self.record.arguments.fill_in(dict(zip(tensors, inputs, strict=True)))
        if isinstance(self.layer, keras.layers.Layer):
            kwargs = {**kwargs, "training": False}
        made = self.layer(*args, **kwargs)
        return made if len(self.record.outputs) == 1 else keras.tree.flatten(made)


class _SelectOutput(keras.Operation):
    """Selects one output of an operation with several."""

    def __init__(self, operation: keras.Operation, index: int) -> None:
        super().__init__(name=f"{operation.name}:{index}")
        self.index = index

    def call(self, outputs: Sequence[Any]) -> Any:
        return outputs[self.index]


@dataclass(frozen=True, eq=False)
class Graph:
    """The calls of the layers of a model over images. Models used as layers are expanded.

    Attributes:
        model: The model.
        nodes: Every call of a layer, each after the calls whose values it takes.
        outputs: Numbers of the values that the model returns.
    """

    model: keras.Model = field(repr=False)
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.name

    @property
    def image_shape(self) -> tuple[int | None, int | None, int]:
        """Shape (h, w, c) of the images; None stands for a side of any length."""
        height, width, channels = self.model.inputs[0].shape[1:]
        return height, width, channels

    @property
    def output(self) -> Node:
        """The node that makes the output of the model.

        Raises:
            UsageError: If the model has several outputs, or returns its image.
        """
        found = [node for node in self.nodes if node.output in self.outputs]
        if len(self.outputs) != 1 or len(found) != 1:
            raise UsageError(
                f"Model {self.name!r} must have one output",
                expected="one output, made by a layer",
                received=", ".join(str(tuple(one.shape)) for one in self.model.outputs),
                hint="Choose one: keras.Model(model.inputs[0], model.outputs[0])",
            )
        return found[0]

    def node(self, name: str) -> Node:
        """Return the node of a layer; `fc6 fc7 fc8` also name VGG's `fc1 fc2 predictions`.

        Raises:
            UsageError: If there is no such layer, it is called more than once, or it has several
                outputs.
        """
        count = Counter(node.layer.name for node in self.nodes)
        _check_name(name)
        for candidate in (name, ALIASES.get(name)):
            if count[candidate] > 1:
                raise UsageError(
                    f"Model {self.name!r} has {count[candidate]} outputs of a layer {candidate!r}",
                    expected="a layer with a name of its own that is called once",
                )
            if count[candidate]:
                found = next(node for node in self.nodes if node.layer.name == candidate)
                if len(found.tensors) > 1:
                    raise UsageError(
                        f"Layer {candidate!r} has {len(found.tensors)} outputs",
                        expected=f"one of {candidate}:0 to {candidate}:{len(found.tensors) - 1}",
                    )
                return found
        raise unknown_name("layer", name, count)

    def ancestors(self, *nodes: Node) -> tuple[Node, ...]:
        """Return the nodes that `nodes` depend on, these included, in the order of the graph."""
        needed = {node.output for node in nodes}
        kept = []
        for node in reversed(self.nodes):
            if node.output in needed:
                needed.update(node.inputs)
                kept.append(node)
        return tuple(kept[::-1])


def build_graph(model: keras.Model | Graph) -> Graph:
    """Return the graph of a functional or built sequential model over images.

    Args:
        model: The model. A `Graph` is returned as it is, so that a function can take either.

    Raises:
        UsageError: If the model is not built, its input is not one batch of images, or a layer has
            the channels first.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models.graph import build_graph
        >>> graph = build_graph(vgg11(input_shape=(32, 32, 3)))
        >>> [node.layer.name for node in graph.ancestors(graph.node("block1_pool"))]
        ['preprocessing', 'block1_conv1', 'block1_pool']
    """
    if isinstance(model, Graph):
        return model
    inputs, _ = input_output_tensors(model)
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise UsageError(
            f"Model {model.name!r} does not take images alone",
            expected="one input of shape (n, h, w, c)",
            received=f"inputs of shape {', '.join(str(tuple(one.shape)) for one in inputs)}",
        )
    nodes: list[Node] = []
    values = _read_model(model, nodes)
    for node in nodes:
        _check_channels_last(model, node)
    return Graph(model, tuple(nodes), tuple(values))


def _check_channels_last(model: keras.Model, node: Node) -> None:
    # Permute names its axes without the batch, keras.ops.transpose with it.
    order = getattr(node.layer, "dims", None) or getattr(node.layer, "axes", None) or ()
    from_image = 0 in node.inputs and tuple(order) in ((2, 3, 1), (0, 2, 3, 1))
    if from_image or getattr(node.layer, "data_format", None) == "channels_first":
        raise UsageError(
            f"Model {model.name!r} must have its channels last",
            expected="images and maps of shape (n, h, w, c)",
            received=f"channels first in layer {node.layer.name!r}",
        )


def input_output_tensors(
    model: keras.Model,
) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
    """Return the symbolic inputs and outputs of a functional or built sequential model.

    Raises:
        UsageError: If the model has none.
    """
    try:
        inputs, outputs = list(model.inputs), list(model.outputs)
    except (AttributeError, TypeError, ValueError):
        inputs, outputs = [], []
    if not inputs or not outputs:
        raise UsageError(
            f"Model {getattr(model, 'name', model)!r} has no known graph of layers",
            expected="a functional or a built sequential model",
            received=type(model).__name__,
        )
    return inputs, outputs


def read_nodes(model: keras.Model, *, expand: bool = True) -> tuple[Node, ...]:
    """Return the nodes of a functional or built sequential model.

    Args:
        model: The model. Its inputs are the values 0, -1, -2, ...
        expand: Whether the nodes of a model used as a layer take the place of its own node.

    Raises:
        UsageError: If the model has no graph.
    """
    nodes: list[Node] = []
    _read_model(model, nodes, expand=expand)
    return tuple(nodes)


def _read_model(model: keras.Model, nodes: list[Node], *, expand: bool = True) -> list[int]:
    """Append the nodes of a model, and return the numbers of its outputs."""
    inputs, outputs = input_output_tensors(model)
    return _read(outputs, {id(one): -number for number, one in enumerate(inputs)}, nodes, expand)


def _read(
    outputs: Iterable[keras.KerasTensor], values: dict[int, int], nodes: list[Node], expand: bool
) -> list[int]:
    """Append the nodes that make `outputs`; `values` holds the numbers of known tensors."""
    outputs = list(outputs)
    # An explicit stack: deep networks would exceed Python's recursion limit.
    waiting = list(outputs)
    while waiting:
        tensor = waiting[-1]
        if id(tensor) in values:
            waiting.pop()
            continue
        # Keras notes here which call of which layer made a tensor. `layer.input` would not do: it
        # fails for a layer that another model uses too.
        layer, index, _ = tensor._keras_history
        record = layer._inbound_nodes[index]
        missing = [one for one in record.input_tensors if id(one) not in values]
        if missing:
            waiting += missing
            continue
        given = [values[id(one)] for one in record.input_tensors]
        if expand and isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
            inner = dict(zip(map(id, layer.inputs), given, strict=True))
            made = _read(layer.outputs, inner, nodes, expand)
        else:
            # The inputs are numbered from 0 down, so node number n makes value n.
            made = [len(nodes) + 1] * len(record.outputs)
            pure = len(record.outputs) == 1 and _has_default_arguments(record)
            nodes.append(Node(layer, tuple(given), made[0], pure, tuple(record.outputs), record))
            if len(made) > 1 and expand:
                made = _append_outputs(nodes)
        values.update(zip(map(id, record.outputs), made, strict=True))
    return [values[id(tensor)] for tensor in outputs]


def _append_outputs(nodes: list[Node]) -> list[int]:
    """Append a node for each output of the last node; return the numbers of their values."""
    call = nodes[-1]
    for index, tensor in enumerate(call.tensors):
        select = _SelectOutput(call.layer, index)
        nodes.append(Node(select, (call.output,), len(nodes) + 1, False, (tensor,)))
    return [node.output for node in nodes[-len(call.tensors) :]]


def _has_default_arguments(record: Any) -> bool:
    # None and False are what Keras fills in itself, and training=True what its augmentation does.
    kwargs = record.arguments.kwargs.items()
    rest = [*record.arguments.args[1:], *(one for name, one in kwargs if name != "training")]
    return all(value is None or value is False for value in rest)


def input_layer(model: keras.Model) -> keras.layers.InputLayer:
    """Return the layer of the first input of a model; `Sequential.layers` leaves it out."""
    inputs, _ = input_output_tensors(model)
    return inputs[0]._keras_history.operation


def layer_outputs(model: keras.Model, layer: keras.layers.Layer) -> list[keras.KerasTensor]:
    """Return the symbolic outputs of a layer within `model`, of all its calls there.

    `layer.output` fails for a layer that another model uses too.
    """
    inputs, _ = input_output_tensors(model)
    if isinstance(layer, keras.layers.InputLayer):
        return [one for one in inputs if one._keras_history.operation is layer]
    nodes = read_nodes(model, expand=False)
    return [tensor for node in nodes if node.layer is layer for tensor in node.tensors]


def layer_calls(
    layer: keras.Operation,
) -> list[tuple[list[keras.KerasTensor], list[keras.KerasTensor]]]:
    """Return the symbolic inputs and outputs of each call of a layer, in any model."""
    return [(one.input_tensors, one.output_tensors) for one in layer._inbound_nodes]


def get_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """Return a layer by its name; `fc6 fc7 fc8` also name VGG's `fc1 fc2 predictions`.

    Raises:
        UsageError: If there is no such layer. The error offers the nearest names.

    Example:
        >>> from cnnkit import vgg11
        >>> from cnnkit.models import get_layer
        >>> get_layer(vgg11(input_shape=(32, 32, 3)), "fc7").name
        'fc2'
    """
    _check_name(name)
    layers = {layer.name: layer for layer in model.layers}
    for candidate in (name, ALIASES.get(name)):
        if candidate in layers:
            return layers[candidate]
    raise unknown_name("layer", name, layers)


def made_by(
    tensor: keras.KerasTensor,
) -> tuple[keras.Operation, tuple[keras.KerasTensor, ...], keras.KerasTensor | None]:
    """Return the layer that makes a symbolic tensor, and the tensors that it takes in this call.

    If the layer is a model, the third value is its own output that the tensor stands for; else it
    is None.
    """
    layer, index, number = tensor._keras_history
    is_model = isinstance(layer, keras.Model) and getattr(layer, "outputs", None)
    inputs = tuple(layer._inbound_nodes[index].input_tensors)
    return layer, inputs, layer.outputs[number] if is_model else None


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise UsageError("`layer` must be the name of a layer", received=repr(name))

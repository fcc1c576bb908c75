"""The layers of a Keras model as the configuration in its file lists them, without TensorFlow.

Keras documents neither the configuration nor the names of the groups of weights. Keras 2 and
Keras 3 differ in both; this module reads all of them, without building a model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnnkit.errors import DataError

# Member of a .keras file with the configuration.
CONFIG = "config.json"
# Name of the input of a sequential model whose file lists none.
INPUT = "input"
MODELS = ("Functional", "Sequential", "Model")


@dataclass(frozen=True)
class ConfigLayer:
    """A layer, or a model used as one, in the configuration of a model.

    Attributes:
        name: Its name.
        kind: Name of its class.
        package: Package that its class is registered for, or an empty text for Keras's own.
        entry: Its entry in the configuration of the model.
        inputs: Names of the layers whose outputs its first call takes.
        group: Group of its weights in Keras 3's files, within that of the model: `layers/conv2d_1`.
        layers: Layers of a model used as a layer.
    """

    name: str
    kind: str
    package: str
    entry: Mapping[str, Any]
    inputs: tuple[str, ...]
    group: str
    layers: tuple[ConfigLayer, ...] = ()

    @property
    def config(self) -> Mapping[str, Any]:
        """Its own configuration."""
        config = self.entry.get("config")
        return config if isinstance(config, Mapping) else {}


def read_layers(model: Mapping[str, Any]) -> tuple[ConfigLayer, ...]:
    """Return the layers in the configuration of a functional or sequential model, in its order.

    Args:
        model: {`class_name`, `config`, ...} as Keras serializes a model.
    """
    config = model.get("config", {})
    entries = config if isinstance(config, list) else config.get("layers", ())
    if not isinstance(entries, (list, tuple)):
        raise DataError("`layers` of the configuration must be a list of objects")
    is_sequential = isinstance(config, list) or not any("inbound_nodes" in one for one in entries)
    counts: Counter[str] = Counter()
    layers: list[ConfigLayer] = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise DataError("`layers` of the configuration must be a list of objects")
        kind = str(entry["class_name"]).rpartition(">")[2]
        package = str(entry.get("registered_name") or entry["class_name"]).rpartition(">")[0]
        own = entry.get("config")
        own_name = own.get("name") if isinstance(own, Mapping) else None
        name = str(entry.get("name") or own_name or "")
        if is_sequential:
            inputs: tuple[str, ...] = (layers[-1].name,) if layers else ()
        else:
            nodes = entry.get("inbound_nodes") or ()
            inputs = tuple(dict.fromkeys(_tensor_names(nodes[0]))) if nodes else ()
        stem = _snake_case(kind)
        group = f"layers/{stem}_{counts[stem]}" if counts[stem] else f"layers/{stem}"
        counts[stem] += 1
        inner = read_layers(entry) if kind in MODELS else ()
        layers.append(ConfigLayer(name, kind, package, entry, inputs, group, inner))
    if is_sequential and layers and layers[0].kind != "InputLayer":
        layers = _with_input(model, layers)
    return tuple(layers)


def _with_input(model: Mapping[str, Any], layers: list[ConfigLayer]) -> list[ConfigLayer]:
    """Return the layers of a sequential model after the input that its file leaves out."""
    shape = layers[0].config.get("batch_input_shape") or model.get("build_config", {}).get(
        "input_shape"
    )
    entry = {"class_name": "InputLayer", "config": {"batch_shape": shape, "name": INPUT}}
    first = ConfigLayer(INPUT, "InputLayer", "", entry, (), "layers/input_layer")
    return [first, replace(layers[0], inputs=(INPUT,)), *layers[1:]]


def _tensor_names(node: Any) -> Iterator[str]:
    """Yield the names of the layers whose outputs a call takes."""
    for tensor in find_tensors(node, None):
        yield tensor["config"]["keras_history"][0] if isinstance(tensor, Mapping) else tensor[0]


def _snake_case(kind: str) -> str:
    """Return a class name as Keras spells it in the names of groups: `max_pooling2d`."""
    kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()


def flatten_layers(
    layers: Sequence[ConfigLayer], prefix: str = ""
) -> Iterator[tuple[str, ConfigLayer]]:
    """Yield every layer with the whole path of its group; inner models are expanded in place."""
    for layer in layers:
        path = f"{prefix}{layer.group}"
        if layer.kind in MODELS and layer.layers:
            yield from flatten_layers(layer.layers, f"{path}/")
        else:
            yield path, layer


def image_shape(model: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Return (h, w, c) of the images that a model takes; an empty tuple if the file has none."""
    for layer in read_layers(model):
        shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
        if layer.kind == "InputLayer" and shape and len(shape) == 4 and shape[3] is not None:
            return tuple(shape[1:])
    return ()


def find_tensors(node: Any, start: str | None) -> Iterator[Any]:
    """Yield the entries of a call that stand for the output of a layer."""
    if isinstance(node, Mapping) and node.get("class_name") == "__keras_tensor__":
        if start in (None, node["config"]["keras_history"][0]):
            yield node
    elif _is_keras_2_tensor(node):
        if start in (None, node[0]):
            yield node
        yield from find_tensors(node[3:], start)
    elif isinstance(node, (Mapping, list, tuple)):
        for value in node.values() if isinstance(node, Mapping) else node:
            yield from find_tensors(value, start)


def _is_keras_2_tensor(node: Any) -> bool:
    """Return True for [name, number of the call, number of the output, {arguments}]."""
    return (
        isinstance(node, list)
        and len(node) in (3, 4)
        and isinstance(node[0], str)
        and all(isinstance(one, int) for one in node[1:3])
    )

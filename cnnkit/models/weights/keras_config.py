"""What the configuration of a Keras model says of its preprocessing, and models built from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from cnnkit._model_config import ConfigLayer, find_tensors, flatten_layers, read_layers
from cnnkit.models.model_input import find_lead
from cnnkit.models.preprocessing import PRESETS, UNKNOWN, Preprocessing

PACKAGE = "cnnkit"

# The networks of keras.applications whose preprocessing lies outside of the model, by the classes
# and names of their first layers; the value is the `mode` of their `preprocess_input`.
_KERAS_APPLICATIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("VGG", "caffe", ("Conv2D block1_conv1", "Conv2D block1_conv2", "MaxPooling2D block1_pool")),
    ("ResNet", "caffe", ("Conv2D conv1_conv", "BatchNormalization conv1_bn",
                         "Activation conv1_relu", "MaxPooling2D pool1_pool")),
    ("ResNet50 of Keras 2.2", "caffe", ("Conv2D conv1", "BatchNormalization bn_conv1")),
    ("ResNetV2", "tf", ("Conv2D conv1_conv", "MaxPooling2D pool1_pool",
                        "BatchNormalization conv2_block1_preact_bn")),
    ("DenseNet", "torch", ("Conv2D conv1_conv", "BatchNormalization conv1_bn",
                           "Activation conv1_relu", "MaxPooling2D pool1")),
    ("Xception", "tf", ("Conv2D block1_conv1", "BatchNormalization block1_conv1_bn")),
    ("MobileNet", "tf", ("Conv2D conv1", "BatchNormalization conv1_bn", "ReLU conv1_relu",
                         "DepthwiseConv2D conv_dw_1")),
    ("MobileNetV2", "tf", ("Conv2D Conv1", "BatchNormalization bn_Conv1")),
    ("NASNet", "tf", ("Conv2D stem_conv1", "BatchNormalization stem_bn1")),
)  # fmt: skip
# Inception's convolutions have the names that Keras numbers; its concatenations have their own.
_INCEPTION = {"Concatenate mixed0": "InceptionV3", "Concatenate mixed_5b": "InceptionResNetV2"}


def keras_applications_preprocessing(layers: Sequence[ConfigLayer]) -> Preprocessing:
    """Return the preprocessing of a network of keras.applications that has it outside of the model.

    The network is recognized by the classes and names of its first layers, in their order. It may
    have another head, and may lie inside another model.

    Returns:
        The preprocessing of its `preprocess_input` as a convention, or an unknown one.
    """
    flat = [layer for _, layer in flatten_layers(layers) if layer.kind != "InputLayer"]
    if any(layer.package == PACKAGE for layer in flat):
        return Preprocessing(origin=UNKNOWN)
    words = [f"{layer.kind} {layer.name}" for layer in flat if layer.kind != "ZeroPadding2D"]
    start = next((n for n, layer in enumerate(flat) if "Conv2D" in layer.kind), 0)
    start -= sum(layer.kind == "ZeroPadding2D" for layer in flat[:start])
    for family, mode, first in _KERAS_APPLICATIONS:
        if tuple(words[start : start + len(first)]) == first:
            return PRESETS[mode].by_convention(f"keras.applications' {family}")
    for word, family in _INCEPTION.items():
        if word in words:
            return PRESETS["tf"].by_convention(f"keras.applications' {family}")
    return Preprocessing(origin=UNKNOWN)


# Layers that keep the values of a constant image.
UNCHANGED = ("InputLayer", "ZeroPadding2D", "Flatten", "Dropout", "Resizing", "CenterCrop")


def leading_models(
    model: Mapping[str, Any],
    has_weights: Callable[[str], bool],
    statistics: Callable[[str], Mapping[str, Any]],
    prefix: str = "",
) -> tuple[list[str], list[dict[str, Any]]]:
    """Cut the preprocessing inside a model out of its configuration.

    Args:
        model: {`class_name`, `config`, ...} as Keras serializes a model.
        has_weights: Whether the file has trained weights of the layer of a group.
        statistics: Settings that the file holds as weights of the layer of a group, such as the
            mean of a `Normalization`.
        prefix: Group of the model.

    Returns:
        Names of the layers before the first weights that may change pixels, and configurations of
        models of all of them, to be applied one after the other.
    """
    layers = read_layers(model)
    starts = [layer.name for layer in layers if layer.kind == "InputLayer"]
    if len(starts) != 1:
        return [], []
    by_name = {layer.name: layer for layer in layers}
    calls = [
        (layer.name, layer.inputs, has_weights(f"{prefix}{layer.group}/"))
        for layer in layers
        if layer.kind != "InputLayer"
    ]
    end, first = find_lead(calls, starts[0])
    needed = {end}
    for layer in reversed(layers):
        if layer.name in needed:
            needed.update(layer.inputs)
    kept = [layer for layer in layers if layer.name in needed]
    names = [layer.name for layer in kept if layer.kind not in UNCHANGED]
    models = []
    if end != starts[0]:
        entries = [_with_settings(one.entry, statistics(f"{prefix}{one.group}/")) for one in kept]
        config: dict[str, Any] = {"name": "lead", "trainable": True, "layers": entries}
        if any("inbound_nodes" in entry for entry in entries):
            config |= {"input_layers": [starts[0], 0, 0], "output_layers": [end, 0, 0]}
        else:
            config["layers"] = [one for one in entries if one["class_name"] != "InputLayer"]
        models.append(config)
    if len(first) == 1 and by_name[first[0]].layers:
        inner = by_name[first[0]]
        more = leading_models(inner.entry, has_weights, statistics, f"{prefix}{inner.group}/")
        names, models = names + more[0], models + more[1]
    return names, models


def _with_settings(entry: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**entry, "config": {**entry["config"], **settings}} if settings else entry


def with_single_tensors(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of a model whose inner models have tensors in place of lists of one.

    Keras up to 3.5 writes lists, which later versions cannot pass on to the next layer.
    """
    config = model.get("config")
    if not isinstance(config, Mapping) or "layers" not in config:
        return model
    changed = {**config, "layers": [with_single_tensors(one) for one in config["layers"]]}
    for key in ("input_layers", "output_layers"):
        if len(changed.get(key, ())) == 1:
            changed[key] = changed[key][0]
    return {**model, "config": changed}


def build_from_config(config: Mapping[str, Any]) -> keras.Model:
    """Build a functional or sequential model from its own configuration; no code in it is run.

    Raises:
        ValueError: If Keras cannot build it, or it would run code of the file.
        TypeError: If a layer is not known.
    """
    kind = "Model" if "input_layers" in config else "Sequential"
    return keras.saving.deserialize_keras_object(
        {"module": "keras", "class_name": kind, "config": {**config}, "registered_name": None}
    )


def with_first_layer(model: Mapping[str, Any], layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of a model with a layer after its input.

    Args:
        model: {`class_name`, `config`, ...} of a functional or sequential model with one input.
        layer: {`class_name`, `config`, ...} of the layer; its name must be new.
    """
    model = copy.deepcopy({**model})
    name, entries = layer["config"]["name"], model["config"]["layers"]
    place = next((n for n, one in enumerate(entries) if one["class_name"] == "InputLayer"), -1)
    entry = dict(layer)
    if any("inbound_nodes" in one for one in entries):
        start = read_layers(model)[place].name
        tensors = [found for one in entries for found in find_tensors(one["inbound_nodes"], start)]
        node = copy.deepcopy(tensors[0])
        is_keras_3 = isinstance(node, dict)
        entry |= {
            "name": name,
            "inbound_nodes": [{"args": [node], "kwargs": {}} if is_keras_3 else [node[:3] + [{}]]],
        }
        for tensor in tensors:
            if is_keras_3:
                tensor["config"]["keras_history"][0] = name
            else:
                tensor[0] = name
    entries.insert(place + 1, entry)
    return model

"""Layers, units and classes of a network, known before TensorFlow starts.

They are read from the configuration in the file of a model, or known by the name of a network. What
a configuration does not tell for sure is None, and is checked when the network is built.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnkit._model_config import CONFIG, MODELS, ConfigLayer, read_layers
from cnnkit._network_names import check_unit, find_class
from cnnkit._networks import IMAGE_SIDES, LAYERS
from cnnkit._untrusted.json_documents import parse_json
from cnnkit._untrusted.limits import MAX_JSON_BYTES
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit._untrusted.zip_archives import open_zip, read_member
from cnnkit.errors import CnnkitError, unknown_name

# Caffe's names of VGG's dense layers.
ALIASES = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
# Names of the layer that `load_model` puts before a network whose preprocessing lies outside.
ADDED_LAYERS = ("preprocessing", "given_preprocessing")
# Setting of a layer that is the number of its units, by the class of the layer.
_UNITS = {"Conv2D": "filters", "GroupedConv2D": "filters", "Dense": "units"}
# Classes of layers whose output has as many units as their input.
_KEEPING = frozenset(
    {
        "Activation", "AveragePooling2D", "BatchNormalization", "CeilMaxPooling2D",
        "ClassProbabilities", "Dropout", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
        "LocalResponseNormalization", "MaxPooling2D", "Normalization", "Probabilities", "ReLU",
        "Rescaling", "Softmax", "SpatialDropout2D", "SubtractMean", "ZeroPadding2D",
    }
)  # fmt: skip
# Class of the last layer of a network with boxes.
CLASS_BOXES = "ClassBoxes"
# Packages whose layers are known: Keras's own are registered for none.
_PACKAGES = ("", "cnnkit")
# Arguments of a builder that change neither its layers nor their units.
_HARMLESS = frozenset(
    {
        "activation", "bias_value", "classes", "dropout", "groups", "initializer", "input_shape",
        "mean", "name", "preprocessing", "weight_stddev",
    }
)  # fmt: skip
# Those that change the units of layers.
_WIDTHS = frozenset({"filters", "hidden_units"})


@dataclass(frozen=True)
class NetworkOutline:
    """Layers, units and classes of a network.

    Attributes:
        name: Name of the model.
        units: Number of units of each layer by its name, in order; None where it is not known.
        inputs: Names of inputs, and of models used as layers.
        weighted: Names of the layers with weights, or None where they are not known.
        classes: Number of classes, or None where it is not known.
        class_names: Names of the classes that are saved with the network, or None.
        sides: Height and width of its images in pixels, or None where they are not fixed or known.
    """

    name: str
    units: Mapping[str, int | None]
    inputs: frozenset[str] = frozenset()
    weighted: tuple[str, ...] | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    sides: tuple[int, int] | None = None

    def find_layer(self, name: str) -> str | None:
        """Return the layer that a name stands for; None for an input or an output of a layer.

        Raises:
            UsageError: If there is no such layer.
        """
        for candidate in (name, ALIASES.get(name)):
            if candidate in self.units:
                return candidate
        if name.partition(":")[0] in {*self.units, *self.inputs, *ADDED_LAYERS}:
            return None
        raise unknown_name("layer", name, self.units)

    def check_unit(self, layer: str, unit: int | str) -> None:
        """Check that a layer has a unit.

        Raises:
            UsageError: If there is no such layer or unit.
        """
        name = self.find_layer(layer)
        count = None if name is None else self.units[name]
        # The units of the classes may be given by their names.
        is_label = not str(unit).isdecimal() and count == self.classes
        if name is not None and count is not None and not is_label:
            check_unit(name, unit, count)

    def check_class(self, label: int | str, names: Sequence[str] | None = None) -> None:
        """Check that the network has a class.

        Args:
            label: The class, by name or number.
            names: Names of the classes in place of the network's own.

        Raises:
            UsageError: If there is no such class.
        """
        if self.classes is not None:
            find_class(label, names or self.class_names or (), self.classes, self.name)


def outline_of_builder(name: str, options: Mapping[str, Any]) -> NetworkOutline | None:
    """Return the outline of a network of the package; None if its options change its layers.

    Args:
        name: Name of the network, as in `cnnkit models`.
        options: Arguments of its builder.

    Example:
        >>> outline_of_builder("alexnet", {}).units["conv5"]
        256
    """
    if name not in LAYERS or not (_HARMLESS | _WIDTHS).issuperset(options):
        return None
    has_own_widths = not _WIDTHS.isdisjoint(options)
    classes = options.get("classes")
    units: dict[str, int | None] = {}
    count: int | None = 3
    weighted = []
    for word in LAYERS[name].split():
        layer, colon, number = word.partition(":")
        if colon:
            count = int(number) if number else classes
            weighted.append(layer)
        elif layer.startswith("flatten"):
            count = None
        units[layer] = None if has_own_widths else count
    return NetworkOutline(
        str(options.get("name", name)),
        units,
        weighted=tuple(weighted),
        classes=classes,
        sides=_sides(options.get("input_shape", (IMAGE_SIDES[name],) * 2)),
    )


def outline_of_file(path: Path) -> NetworkOutline | None:
    """Return the outline of the network in a `.keras` file; None if the file does not tell it.

    What is wrong with the file is told when it is loaded.
    """
    try:
        with open_regular_file(path) as file:
            if not zipfile.is_zipfile(file):
                return None
        with open_zip(path) as archive:
            if CONFIG not in archive.namelist():
                return None
            data = read_member(archive, CONFIG, max_bytes=MAX_JSON_BYTES)
        return outline_of_config(parse_json(data, path))
    # Configurations of other versions and of strangers may have any form.
    except (CnnkitError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def outline_of_config(model: Mapping[str, Any]) -> NetworkOutline:
    """Return the outline of the network in a configuration.

    Args:
        model: {`class_name`, `config`, ...} as Keras serializes a model.
    """
    units: dict[str, int | None] = {}
    inputs: set[str] = set()
    layers = read_layers(model)
    _collect(layers, units, inputs)
    last = _output(model, layers)
    classes = None
    names = None
    if last is not None:
        count = units.get(last.name)
        # A network with one output may have two classes.
        classes = count if count != 1 else None
        names = last.config.get("class_names")
        if last.kind == CLASS_BOXES:
            # The boxes follow the classes.
            classes = len(names or ())
    shapes = [_input_shape(layer) for layer in layers if layer.kind == "InputLayer"]
    name = model["config"].get("name") if isinstance(model["config"], Mapping) else None
    return NetworkOutline(
        str(name or ""),
        units,
        frozenset(inputs),
        classes=classes,
        class_names=tuple(map(str, names)) if names else None,
        sides=_sides(shapes[0][1:]) if len(shapes) == 1 and shapes[0][3:] in ([3], (3,)) else None,
    )


def _collect(layers: Sequence[ConfigLayer], units: dict[str, int | None], inputs: set[str]) -> None:
    """Add the units of layers by name, and the names of inputs and of models used as layers."""
    counts: dict[str, int | None] = {}
    for layer in layers:
        counts[layer.name] = _count_units(layer, counts)
        if layer.kind in MODELS or layer.kind == "InputLayer":
            inputs.add(layer.name)
            if layer.layers:
                _collect(layer.layers, units, inputs)
                last = _output(layer.entry, layer.layers)
                counts[layer.name] = None if last is None else units.get(last.name)
        else:
            # A name that stands twice is told by the check of the network.
            units[layer.name] = None if layer.name in units else counts[layer.name]


def _count_units(layer: ConfigLayer, counts: Mapping[str, int | None]) -> int | None:
    """Return the number of units of a layer's output, given those of the layers before it."""
    config = layer.config
    if layer.package not in _PACKAGES or config.get("data_format") == "channels_first":
        return None
    if layer.kind == "InputLayer":
        return _whole(_input_shape(layer)[-1])
    if layer.kind in _UNITS:
        return _whole(config.get(_UNITS[layer.kind]))
    if layer.kind in _KEEPING and len(layer.inputs) == 1:
        return counts.get(layer.inputs[0])
    return None


def _input_shape(layer: ConfigLayer) -> Sequence[Any]:
    """Return the shape of an input, with the number of images first; (None,) if it has none."""
    config = layer.config
    return config.get("batch_shape") or config.get("batch_input_shape") or (None,)


def _sides(shape: Any) -> tuple[int, int] | None:
    """Return the height and the width of a shape that begins with them, if both are fixed."""
    if not isinstance(shape, list | tuple) or len(shape) < 2:
        return None
    height, width = map(_whole, shape[:2])
    return None if height is None or width is None else (height, width)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _output(model: Mapping[str, Any], layers: Sequence[ConfigLayer]) -> ConfigLayer | None:
    """Return the layer that makes the only output of a model; models as layers are opened."""
    config = model["config"]
    name: object = layers[-1].name if layers else None
    if isinstance(config, Mapping) and "output_layers" in config:
        found = config["output_layers"]
        if len(found) == 1:
            found = found[0]
        name = found[0] if isinstance(found, list) and isinstance(found[0], str) else None
    last = next((layer for layer in layers if layer.name == name), None)
    return _output(last.entry, last.layers) if last is not None and last.layers else last

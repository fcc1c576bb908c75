"""Reading Keras's files: the weights, and what a file says of the images that its network expects.

The classes, names and order of the layers decide; where a file has none, its groups of weights.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnkit._model_config import ConfigLayer, flatten_layers, image_shape, read_layers
from cnnkit._untrusted.limits import MAX_MEAN_BYTES, MAX_PROBE_NUMBERS, MAX_SETTING_BYTES
from cnnkit.errors import UsageError
from cnnkit.models.model_input import FREE_SIDE, measure_preprocessing, name_layers, outside_of
from cnnkit.models.preprocessing import PRESETS, UNKNOWN, VGG, Preprocessing, compose
from cnnkit.models.weights.keras_config import (
    PACKAGE,
    build_from_config,
    keras_applications_preprocessing,
    leading_models,
)
from cnnkit.models.weights.keras_groups import (
    NORMALIZATION,
    KerasFile,
    LayerGroup,
    open_keras,
    read_groups,
    unsupported_layer,
)
from cnnkit.models.weights.model_size import outline, with_sides
from cnnkit.models.weights.weights_file import (
    HWIO,
    LRNParameters,
    StoredLayer,
    StoredTensor,
    WeightsFile,
)

# Classes whose weights are a kernel and a bias.
KERNEL_KINDS = ("conv2d", "dense", "grouped_conv2d")
MEAN_LAYER = "subtract_mean"
# Groups of layers that do nothing to the pixels before the first convolution of a VGG network.
VGG_GROUPS = ("input_layer", "conv2d", "max_pooling2d", "average_pooling2d", "flatten", "dense",
              "dropout", "functional", "sequential", "global_average_pooling2d",
              "global_max_pooling2d", "activation", "re_lu", "softmax")  # fmt: skip
VGG_LAYERS = ("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2", "block3_conv1")
VGG_UNITS = (64, 64, 128, 128, 256)

# Layers whose weights are settings of the preprocessing.
SETTINGS = (NORMALIZATION, MEAN_LAYER)
NORMALIZATION_ROLES = {"kernel": "mean", "bias": "variance"}
COUNT = ("2", "count")
NOTHING_STATED = "not stated in the file"


def read_keras(path: Path) -> WeightsFile:
    """Read the weights of a `.keras`, `.weights.h5` or `.h5` file, and what it says of itself.

    Raises:
        UsageError: If the file has no weights, or weights of other layers than convolutions and
            dense layers.
    """
    file = open_keras(path)
    layers = () if file.model is None else read_layers(file.model)
    with file.open_hdf5() as handle:
        groups = read_groups(file, handle, layers)
    outside, inside = _file_input(file, groups, layers)
    stored = _stored_layers(path, groups, is_unordered=not layers)
    flat = [layer for _, layer in flatten_layers(layers)]
    normalizations = {
        layer.name: _lrn_parameters(layer.config)
        for layer in flat
        if layer.kind == "LocalResponseNormalization"
    }
    has_config = bool(layers)
    class_names = [layer.config.get("class_names") for layer in flat]
    for names in class_names:
        if names and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
            raise UsageError(f"{path} has names of classes that are not a list of texts")
    return WeightsFile(
        path,
        file.format,
        tuple(stored),
        HWIO,
        preprocessing=compose(outside, inside),
        class_names=next((tuple(value) for value in class_names if value), None),
        normalizations=normalizations or (None if has_config else {}),
        norms_after_pooling=_norms_after_pooling([layer.name for layer in flat], normalizations),
        metadata={"written by": f"Keras {file.version}"} if file.version else {},
    )


def keras_input(file: KerasFile) -> Preprocessing:
    """Return what has to be done to RGB images in 0..255 for the model in a file.

    Raises:
        UsageError: If the weights in the file are not whole.
    """
    layers = () if file.model is None else read_layers(file.model)
    with file.open_hdf5() as handle:
        groups = read_groups(file, handle, layers)
    return _file_input(file, groups, layers)[0]


def _stored_layers(
    path: Path, groups: Sequence[LayerGroup], *, is_unordered: bool
) -> list[StoredLayer]:
    """Return the convolutions and dense layers.

    Args:
        path: The file.
        groups: Its layers.
        is_unordered: Whether the file does not tell which layers come first.

    Raises:
        UsageError: If the file has other weights, except for those of the preprocessing.
    """
    stored: list[StoredLayer] = []
    for group in groups:
        arrays = dict(group.arrays)
        if not arrays or (group.kind in SETTINGS and (is_unordered or not stored)):
            continue
        kernel, bias = arrays.pop("kernel", None), arrays.pop("bias", None)
        name = group.name or group.path.rpartition("/")[2]
        if kernel is None or arrays or group.kind not in (*KERNEL_KINDS, ""):
            raise unsupported_layer(path, name)
        if len(kernel.shape) not in (2, 4):
            raise unsupported_layer(path, name)
        stored.append(StoredLayer(name, kernel, bias))
    if not stored:
        raise UsageError(f"{path} has no weights", expected="a model that was built and saved")
    return stored


def _file_input(
    file: KerasFile, groups: Sequence[LayerGroup], layers: Sequence[ConfigLayer]
) -> tuple[Preprocessing, Preprocessing]:
    """Return what a model expects of RGB images in 0..255, and what its own first layers do."""
    identity = PRESETS["raw"]
    means = [group for group in groups if "mean" in group.arrays and group.kind == MEAN_LAYER]
    if file.model is None or not layers:
        if means:
            return identity.said_by_file("its mean"), _subtracted(means[0].arrays)
        if _is_vgg(file, groups):
            return VGG.by_convention("keras.applications' VGG"), identity
        settings = [group.kind for group in groups if group.kind in (NORMALIZATION, "rescaling")]
        reason = f"its {settings[0]} layer is not described in it" if settings else NOTHING_STATED
        return Preprocessing(origin=UNKNOWN, reason=reason), identity
    with_weights = [g.path + "/" for g in groups if g.arrays and g.kind not in SETTINGS]
    names, models = leading_models(
        file.model,
        lambda prefix: any(path.startswith(prefix) for path in with_weights),
        lambda prefix: _settings(groups, prefix),
    )
    if not names:
        return _of_applications(layers), identity
    reason = name_layers(names)
    leading = {layer.name: layer for _, layer in flatten_layers(layers)}
    first = leading.get(names[0])
    if first is not None and (first.package, first.kind) == (PACKAGE, "SubtractMean"):
        outside = identity.said_by_file(reason)
        if len(names) == 1:
            return outside, _subtracted(means[0].arrays if means else first.config)
    inside = _measure(models, image_shape(file.model))
    if inside is None:
        unknown = f"{reason} of the file before the first weights cannot be read"
        return Preprocessing(origin=UNKNOWN, reason=unknown), identity
    if inside.is_identity:
        return _of_applications(layers), identity
    return outside_of(inside, reason), inside


def _of_applications(layers: Sequence[ConfigLayer]) -> Preprocessing:
    found = keras_applications_preprocessing(layers)
    return found if found.reason else replace(found, reason=NOTHING_STATED)


def _subtracted(statistics: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of a `SubtractMean` from its arrays or its configuration."""
    mean, std = (
        value.array(MAX_MEAN_BYTES) if isinstance(value, StoredTensor) else value
        for value in (statistics.get("mean"), statistics.get("std"))
    )
    return Preprocessing(np.asarray(mean, float), None if std is None else np.asarray(std, float))


def _settings(groups: Sequence[LayerGroup], prefix: str) -> dict[str, Any]:
    """Return the arrays of a layer of the preprocessing as its arguments."""
    for group in groups:
        if f"{group.path}/" == prefix and group.kind in SETTINGS:
            return {
                NORMALIZATION_ROLES.get(key, key): tensor.array(MAX_SETTING_BYTES).tolist()
                for key, tensor in group.arrays.items()
                if key not in COUNT
            }
    return {}


def _measure(models: Sequence[dict[str, Any]], shape: Sequence[int | None]) -> Preprocessing | None:
    """Measure what models do to images one after the other; None if that cannot be known."""
    if not shape or any(
        entry["class_name"] == "Lambda" for one in models for entry in one["layers"]
    ):
        return None
    try:
        size = outline(functools.partial(_chain, models, shape))
        if max(size.weights, size.largest_output) > MAX_PROBE_NUMBERS:
            return None
        built = [build_from_config(one) for one in models]

        def apply(images: Any) -> Any:
            for model in built:
                images = model(images, training=False)
            return images

        return measure_preprocessing(apply, shape)
    # Layers of other packages or versions fail in many ways.
    except Exception:
        return None


def _chain(models: Sequence[dict[str, Any]], shape: Sequence[int | None]) -> keras.Model:
    """Return a model of models one after the other, for images of the size of the measurement.

    A sequential model has no outputs to measure before it is called.
    """
    images = inputs = keras.Input([FREE_SIDE if side is None else side for side in shape])
    for number, one in enumerate(models):
        sides = images.shape[1:3] if len(images.shape) == 4 else (None, None)
        # Keras refuses two parts of one name.
        part = {**with_sides(one, sides), "name": f"part_{number}"}
        images = build_from_config(part)(images)
    return keras.Model(inputs, images)


def _is_vgg(file: KerasFile, groups: Sequence[LayerGroup]) -> bool:
    """Return True for weights alone that begin as keras.applications' VGG16 and VGG19 do."""
    convolutions = [g for g in groups if len(_shape_of(g)) == 4]
    if file.root is not None:
        before = [group.name for group in groups].index(convolutions[0].name) if convolutions else 0
        plain = before <= 1
    else:
        plain = all(group.kind in VGG_GROUPS for group in groups) and not any(
            # The package's ReLU is a layer within the convolution, Keras's is a function.
            group.path.endswith("/activation")
            for group in groups
        )
    names = tuple(group.name for group in convolutions[: len(VGG_LAYERS)])
    if any(names):
        return plain and len(names) > 1 and names == VGG_LAYERS[: len(names)]
    shapes = tuple(_shape_of(group)[::3] for group in convolutions[: len(VGG_LAYERS)])
    return plain and shapes == tuple((3, units) for units in VGG_UNITS)


def _shape_of(group: LayerGroup) -> tuple[int, ...]:
    return group.arrays["kernel"].shape if "kernel" in group.arrays else ()


def _lrn_parameters(config: Mapping[str, Any]) -> LRNParameters:
    within_channel = config["region"] == "within"
    cells = config["size"] ** (2 if within_channel else 1)
    alpha = config["alpha"] / (cells if config["alpha_convention"] == "mean" else 1)
    return LRNParameters(config["size"], alpha, config["beta"], config["k"], within_channel)


def _norms_after_pooling(
    names: Sequence[str], normalizations: Iterable[str]
) -> frozenset[str] | None:
    if not normalizations:
        return None
    pools = {name: name.replace("norm", "pool") for name in normalizations}
    return frozenset(
        name
        for name, pool in pools.items()
        if pool in names and names.index(pool) < names.index(name)
    )

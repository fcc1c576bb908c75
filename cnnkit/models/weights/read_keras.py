"""Files that Keras writes: `.keras`, `.weights.h5`, and the `.h5` of keras.applications."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import VGG, Preprocessing
from cnnkit.models.weights.weights_file import (
    HWIO,
    LRNParameters,
    StoredLayer,
    StoredTensor,
    WeightsFile,
)

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
# Groups that only our own networks leave in a weights file: their mean, their dropout, their ReLU.
OURS = ("subtract_mean", "dropout", "activation/vars", "probabilities")

Opener = Callable[[], "contextmanager[h5py.File]"]


def read_keras(path: Path) -> WeightsFile:
    """Reads a `.keras` file: the weights in it, and the class names in its configuration."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read(CONFIG))
        if WEIGHTS not in archive.namelist():
            raise UsageError(
                f"{path} holds no weights", expected=f"{WEIGHTS} inside the .keras file"
            )

    @contextmanager
    def opened() -> Iterator[h5py.File]:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(WEIGHTS) as member,
            h5py.File(member) as file,
        ):
            yield file

    found = _named(path, opened, "a Keras model (.keras)")
    layers = {layer["name"]: layer for layer in config["config"].get("layers", ())}
    names = [layer["config"].get("class_names") for layer in layers.values()]
    normalizations = {
        name: _normalization(layer["config"])
        for name, layer in layers.items()
        if layer["class_name"] == "LocalResponseNormalization"
    }
    return dataclasses.replace(
        found,
        class_names=next((tuple(value) for value in names if value), None),
        normalizations=normalizations or None,
        pooled_first=_pooled_first(list(layers), normalizations),
    )


def read_hdf5(path: Path) -> WeightsFile:
    """Reads `.weights.h5` files and the older `.h5` files, with or without the model's layers."""

    @contextmanager
    def opened() -> Iterator[h5py.File]:
        with h5py.File(path) as file:
            yield file

    with opened() as file:
        root = "model_weights" if "model_weights" in file else ""
        if "layer_names" in file[f"/{root}"].attrs:
            return _legacy(path, opened, file, root)
        if "layers" not in file:
            raise UsageError(
                f"{path} is an HDF5 file, but holds no Keras weights", received=", ".join(file)
            )
    return _named(path, opened, "Keras weights (.weights.h5)")


def _named(path: Path, opened: Opener, kind: str) -> WeightsFile:
    """Reads the layout of Keras 3, which keeps each layer's name as an attribute."""
    layers: list[StoredLayer] = []
    groups: list[str] = []
    preprocessing = None
    with opened() as file:

        def visit(place: str, item) -> None:
            nonlocal preprocessing
            groups.append(place)
            if not place.endswith("/vars") or not isinstance(item, h5py.Group):
                return
            # Deeper down are the seeds of dropout.
            of_layer = place.count("/") == 1
            if of_layer and "0" in item and len(item["0"].shape) == 1:
                raise _other_layer(path, item.attrs.get("name", place))
            if "mean" in item:
                std = np.array(item["std"]) if "std" in item else None
                preprocessing = Preprocessing(np.array(item["mean"]), std)
            elif "0" in item and len(item["0"].shape) > 1:
                name = item.attrs.get("name", place.split("/")[-2])
                bias = _tensor(opened, item["1"], f"{name}/bias") if "1" in item else None
                layers.append(StoredLayer(name, _tensor(opened, item["0"], f"{name}/kernel"), bias))

        file["layers"].visititems(visit)
    ours = any(mark in place for place in groups for mark in OURS)
    # keras.applications took VGG over from Caffe, with its order of the colors.
    foreign = not ours and any(layer.name.startswith("block1_conv") for layer in layers)
    if foreign:
        kind += " of keras.applications"
    return WeightsFile(
        path,
        kind,
        tuple(sorted(layers, key=lambda layer: _order(layer.name))),
        HWIO,
        channels="BGR" if foreign else "RGB",
        preprocessing=VGG if foreign else preprocessing,
    )


def _normalization(config: Mapping[str, Any]) -> LRNParameters:
    within = config["region"] == "within"
    cells = config["size"] ** (2 if within else 1)
    alpha = config["alpha"] / (cells if config["alpha_convention"] == "mean" else 1)
    return LRNParameters(config["size"], alpha, config["beta"], config["k"], within)


def _pooled_first(names: list[str], normalizations) -> frozenset[str] | None:
    if not normalizations:
        return None
    pools = {name: name.replace("norm", "pool") for name in normalizations}
    return frozenset(
        name
        for name, pool in pools.items()
        if pool in names and names.index(pool) < names.index(name)
    )


def _legacy(path: Path, opened: Opener, file: h5py.File, root: str) -> WeightsFile:
    """Reads the layout before Keras 3, which keras.applications still hands out."""
    group = file[f"/{root}"]
    layers = []
    for layer in _texts(group.attrs["layer_names"]):
        tensors = [
            _tensor(opened, group[layer][weight], weight.removesuffix(":0"))
            for weight in _texts(group[layer].attrs["weight_names"])
        ]
        if tensors and len(tensors[0].shape) == 1:
            raise _other_layer(path, layer)
        if tensors:
            layers.append(StoredLayer(layer, tensors[0], tensors[1] if tensors[1:] else None))
    return WeightsFile(
        path,
        "Keras weights of keras.applications (.h5)",
        tuple(layers),
        HWIO,
        channels="BGR",
        preprocessing=VGG,
    )


def _other_layer(path: Path, name: str) -> UsageError:
    return UsageError(
        f"{path} has weights of another kind in layer {name!r}",
        expected="convolutions and dense layers, as the papers' networks have them",
        hint="Batch normalization can be folded into the convolutions before",
    )


def _texts(values) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _tensor(opened: Opener, dataset: h5py.Dataset, name: str) -> StoredTensor:
    place = dataset.name

    def read(rows: slice) -> np.ndarray:
        with opened() as file:
            return file[place][rows]

    return StoredTensor(name, tuple(dataset.shape), read)


def _order(name: str) -> tuple:
    """Sorts `conv10` after `conv9`, and dense layers after convolutions."""
    digits = tuple(int(part) for part in "".join(c if c.isdigit() else " " for c in name).split())
    return ("conv" not in name, name.startswith("pred"), digits, name)

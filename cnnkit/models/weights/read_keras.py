"""Reading Keras's weights: `.keras`, `.weights.h5`, and the `.h5` files of keras.applications.

Keras documents none of the layouts inside its files. All that is known of them is in this module;
the tests write files with the installed Keras.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import UNKNOWN, VGG, Preprocessing
from cnnkit.models.weights.weights_file import (
    HWIO,
    LRNParameters,
    StoredLayer,
    StoredTensor,
    WeightsFile,
)

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
# HDF5 groups that only networks of cnnkit have: their mean, their dropout, their ReLU. Keras makes
# the names from the class names of the layers.
CNNKIT_GROUPS = ("subtract_mean", "dropout", "activation/vars", "probabilities")

OpenHDF5 = Callable[[], AbstractContextManager[h5py.File]]


def read_keras(path: Path) -> WeightsFile:
    """Read a `.keras` file: its weights, and the class names in its configuration.

    Raises:
        UsageError: If the file has no weights, or weights of other layers than convolutions and
            dense layers.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read(CONFIG))
        if WEIGHTS not in archive.namelist():
            raise UsageError(f"{path} has no weights", expected=f"{WEIGHTS} inside the .keras file")

    @contextmanager
    def open_hdf5() -> Iterator[h5py.File]:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(WEIGHTS) as member,
            h5py.File(member) as file,
        ):
            yield file

    found = _read_keras_3(path, open_hdf5, "a Keras model (.keras)")
    layers = {layer["name"]: layer for layer in config["config"].get("layers", ())}
    names = [layer["config"].get("class_names") for layer in layers.values()]
    normalizations = {
        name: _lrn_parameters(layer["config"])
        for name, layer in layers.items()
        if layer["class_name"] == "LocalResponseNormalization"
    }
    return dataclasses.replace(
        found,
        class_names=next((tuple(value) for value in names if value), None),
        normalizations=normalizations or None,
        norms_after_pooling=_norms_after_pooling(list(layers), normalizations),
    )


def read_hdf5(path: Path) -> WeightsFile:
    """Read a `.weights.h5` file, or an older `.h5` file with or without the model's layers.

    Raises:
        UsageError: If the file has no weights of Keras, or weights of other layers than
            convolutions and dense layers.
    """

    @contextmanager
    def open_hdf5() -> Iterator[h5py.File]:
        with h5py.File(path) as file:
            yield file

    with open_hdf5() as file:
        root = "model_weights" if "model_weights" in file else ""
        if "layer_names" in file[f"/{root}"].attrs:
            return _read_keras_2(path, open_hdf5, file, root)
        if "layers" not in file:
            raise UsageError(
                f"{path} is an HDF5 file, but has no Keras weights", received=", ".join(file)
            )
    return _read_keras_3(path, open_hdf5, "Keras weights (.weights.h5)")


def _read_keras_3(path: Path, open_hdf5: OpenHDF5, format: str) -> WeightsFile:
    """Read the layout of Keras 3: `layers/GROUP/vars/0`, with the layer's name as an attribute."""
    layers: list[StoredLayer] = []
    groups: list[str] = []
    preprocessing = Preprocessing(origin=UNKNOWN)
    with open_hdf5() as file:

        def visit(group: str, item: h5py.Group | h5py.Dataset) -> None:
            nonlocal preprocessing
            groups.append(group)
            if not group.endswith("/vars") or not isinstance(item, h5py.Group):
                return
            # The seeds of dropout lie deeper.
            is_layer = group.count("/") == 1
            if is_layer and "0" in item and len(item["0"].shape) == 1:
                raise _unsupported_layer(path, item.attrs.get("name", group))
            if "mean" in item:
                std = np.array(item["std"]) if "std" in item else None
                preprocessing = Preprocessing(np.array(item["mean"]), std).said_by_file("its mean")
            elif "0" in item and len(item["0"].shape) > 1:
                name = item.attrs.get("name", group.split("/")[-2])
                kernel = _stored_tensor(open_hdf5, item["0"], f"{name}/kernel")
                bias = None
                if "1" in item:
                    bias = _stored_tensor(open_hdf5, item["1"], f"{name}/bias")
                layers.append(StoredLayer(name, kernel, bias))

        file["layers"].visititems(visit)
    is_cnnkit = any(mark in group for group in groups for mark in CNNKIT_GROUPS)
    # keras.applications converted VGG from Caffe and kept its order of the colors.
    is_applications = not is_cnnkit and any(x.name.startswith("block1_conv") for x in layers)
    return WeightsFile(
        path,
        f"{format} of keras.applications" if is_applications else format,
        tuple(sorted(layers, key=lambda layer: _sort_key(layer.name))),
        HWIO,
        preprocessing=VGG.by_convention("keras.applications") if is_applications else preprocessing,
    )


def _read_keras_2(path: Path, open_hdf5: OpenHDF5, file: h5py.File, root: str) -> WeightsFile:
    """Read the layout before Keras 3, in which keras.applications distributes its weights."""
    group = file[f"/{root}"]
    layers = []
    for layer in _decoded(group.attrs["layer_names"]):
        tensors = [
            _stored_tensor(open_hdf5, group[layer][weight], weight.removesuffix(":0"))
            for weight in _decoded(group[layer].attrs["weight_names"])
        ]
        if tensors and len(tensors[0].shape) == 1:
            raise _unsupported_layer(path, layer)
        if tensors:
            layers.append(StoredLayer(layer, tensors[0], tensors[1] if tensors[1:] else None))
    return WeightsFile(
        path,
        "Keras weights of keras.applications (.h5)",
        tuple(layers),
        HWIO,
        preprocessing=VGG.by_convention("keras.applications"),
    )


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


def _unsupported_layer(path: Path, name: str) -> UsageError:
    return UsageError(
        f"{path} has weights of another kind in layer {name!r}",
        expected="convolutions and dense layers, as the papers' networks have them",
        hint="Batch normalization can be folded into the convolution before it",
    )


def _decoded(values: Iterable[str | bytes]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _stored_tensor(open_hdf5: OpenHDF5, dataset: h5py.Dataset, name: str) -> StoredTensor:
    location = dataset.name

    def read(rows: slice) -> np.ndarray:
        with open_hdf5() as file:
            return file[location][rows]

    return StoredTensor(name, tuple(dataset.shape), read)


def _sort_key(name: str) -> tuple[bool, bool, tuple[int, ...], str]:
    """Sort `conv10` after `conv9`, and dense layers after convolutions."""
    digits = tuple(int(part) for part in "".join(c if c.isdigit() else " " for c in name).split())
    return ("conv" not in name, name.startswith("pred"), digits, name)

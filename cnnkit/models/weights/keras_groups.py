"""The weights in a file of Keras, layer by layer, in the layouts of Keras 2 and Keras 3.

Keras documents none of the layouts inside its files. All that is known of the groups of weights is
in this module, and of the configuration in `keras_config`; the tests write files with the installed
Keras, and hold the layouts of older versions.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cnnkit._model_config import CONFIG, ConfigLayer, flatten_layers
from cnnkit._untrusted.damage import shorten
from cnnkit._untrusted.hdf5_files import open_hdf5, read_text_attribute, read_text_attributes
from cnnkit._untrusted.json_documents import JsonFields, parse_json
from cnnkit._untrusted.limits import MAX_JSON_BYTES
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit._untrusted.zip_archives import check_paths, open_member, open_zip, read_member
from cnnkit.errors import UsageError
from cnnkit.models.weights.weights_file import StoredTensor

METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
# Generators of random numbers, such as a dropout's, have weights too.
SEEDS = "seed_generator"
NORMALIZATION = "normalization"
# Keras 3 numbers the weights of a layer. A `Normalization` has its count as the third.
ROLES = {"0": "kernel", "1": "bias"}
# block1_conv1_W_1:0 in files of TensorFlow 1, conv2d/kernel:0 later, kernel in Keras 3.0.
KERAS_2_ROLE = re.compile(r"(?:(?:.*_)?(W|b)|(kernel|bias))(?:_\d+)?")
KERAS_2_ROLES = {"W": "kernel", "b": "bias"}

OpenHDF5 = Callable[[], AbstractContextManager[h5py.File]]


@dataclass(frozen=True)
class KerasFile:
    """A file of Keras: how to open its weights, and what it says of its network.

    Attributes:
        path: The file.
        format: Description of the format.
        open_hdf5: Opens the HDF5 file of the weights.
        root: Group of the weights in the layout of Keras 2; None for that of Keras 3.
        model: {`class_name`, `config`, ...} of the model, or None for weights alone.
        version: Version of Keras that wrote the file, as far as it is known.
    """

    path: Path
    format: str
    open_hdf5: OpenHDF5 = field(repr=False)
    root: str | None
    model: Mapping[str, Any] | None = field(repr=False)
    version: str = ""


@dataclass(frozen=True)
class LayerGroup:
    """The arrays of a layer: its path, its name, the stem of its class, arrays by their role."""

    path: str
    name: str
    kind: str
    arrays: Mapping[str, StoredTensor]


def open_keras(path: Path) -> KerasFile:
    """Open a file of Keras, `.keras` or HDF5, without reading its weights.

    Raises:
        UsageError: If the file has no weights of Keras.
    """
    with open_regular_file(path) as file:
        is_zip = zipfile.is_zipfile(file)
    if is_zip:
        return _open_zip(path)

    def open_again() -> AbstractContextManager[h5py.File]:
        return open_hdf5(path, check=False)

    with open_hdf5(path) as file:
        config = read_text_attribute(file, "model_config", path)
        model = (
            _model_of(parse_json(config, f"The configuration in {path}"), path) if config else None
        )
        root = "model_weights" if "model_weights" in file else ""
        if "layer_names" in file[f"/{root}"].attrs:
            kind = "weights" if model is None else "model"
            version = read_text_attribute(file[f"/{root}"], "keras_version", path)
            return KerasFile(path, f"Keras {kind} (.h5)", open_again, root, model, version)
        if "layers" not in file:
            raise UsageError(
                f"{path} is an HDF5 file, but has no Keras weights",
                received=shorten(", ".join(list(file)[:100])),
            )
    return KerasFile(path, "Keras weights (.weights.h5)", open_again, None, None)


def _open_zip(path: Path) -> KerasFile:
    with open_zip(path) as archive:
        check_paths(archive)
        names = archive.namelist()
        config = read_member(archive, CONFIG, max_bytes=MAX_JSON_BYTES)
        model = _model_of(parse_json(config, f"{CONFIG} in {path}"), path)
        version = ""
        if METADATA in names:
            metadata = read_member(archive, METADATA, max_bytes=MAX_JSON_BYTES)
            origin = f"{METADATA} in {path}"
            version = JsonFields(parse_json(metadata, origin), origin).text(
                "keras_version", max_length=80, default=""
            )
        if WEIGHTS not in names:
            raise UsageError(f"{path} has no weights", expected=f"{WEIGHTS} inside the .keras file")

    @contextmanager
    def open_member_as_hdf5(check: bool = False) -> Iterator[h5py.File]:
        with (
            open_zip(path) as archive,
            open_member(archive, WEIGHTS) as member,
            open_hdf5(member, f"{WEIGHTS} in {path}", check=check) as file,
        ):
            yield file

    with open_member_as_hdf5(check=True):
        return KerasFile(path, "Keras model (.keras)", open_member_as_hdf5, None, model, version)


def _model_of(document: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise UsageError(f"The configuration in {path} must be a JSON object")
    return document


def read_groups(
    file: KerasFile, handle: h5py.File, layers: Sequence[ConfigLayer]
) -> list[LayerGroup]:
    """Return the layers in the file, in the order of the network as far as that is known."""
    if file.root is not None:
        return list(_keras_2_groups(file, handle[f"/{file.root}"], layers))
    return _keras_3_groups(file, handle, layers)


def count_numbers(file: KerasFile) -> int:
    """Return the number of numbers in a file, also of those that are no weights of a layer."""
    total = 0

    def visit(_: str, item: h5py.Group | h5py.Dataset) -> None:
        nonlocal total
        if isinstance(item, h5py.Dataset):
            total += math.prod(item.shape)

    with file.open_hdf5() as handle:
        handle.visititems(visit)
    return total


def _keras_3_groups(
    file: KerasFile, handle: h5py.File, layers: Sequence[ConfigLayer]
) -> list[LayerGroup]:
    """Read the layout of Keras 3: `layers/CLASS_N/vars/0`, of inner models below their group.

    Since Keras 3.6, the name of the layer is an attribute. Before, it stands in the configuration,
    whose layers are numbered by class as the groups are.
    """
    arrays: dict[str, dict[str, StoredTensor]] = {}
    names: dict[str, str] = {}

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        place = f"layers/{path}".rpartition("/vars")[0]
        if SEEDS in path.split("/"):
            return
        if isinstance(item, h5py.Group) and path.endswith("/vars"):
            names[place] = read_text_attribute(item, "name", file.path)
            arrays[place] = {}
        elif isinstance(item, h5py.Dataset):
            key = path.rpartition("/")[2]
            arrays[place][key] = _stored_tensor(file, item, f"{names[place] or place}/{key}")

    # HDF5 visits a group before what is in it.
    if "layers" in handle:
        handle["layers"].visititems(visit)
    known = dict(flatten_layers(layers))
    order = sorted((place for place in arrays if place not in known), key=_group_sort_key)
    return [
        LayerGroup(
            place,
            known[place].name if place in known else names[place],
            _stem(place),
            _with_roles(arrays.get(place, {})),
        )
        for place in [*known, *order]
    ]


def _with_roles(arrays: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the arrays of a layer of Keras 3 by role where Keras has only numbers."""
    return {ROLES.get(key, key): tensor for key, tensor in arrays.items()}


def _keras_2_groups(
    file: KerasFile, handle: h5py.Group, layers: Sequence[ConfigLayer]
) -> Iterator[LayerGroup]:
    """Read the layout of Keras 2, in which keras.applications distributes its weights.

    An inner model has the weights of its layers in its own group, in their order.
    """
    by_name = {layer.name: layer for layer in layers}
    for name in read_text_attributes(handle, "layer_names", file.path):
        weights = read_text_attributes(handle[name], "weight_names", file.path)
        if len(set(weights)) < len(weights):
            raise UsageError(
                f"{file.path} is incomplete: layer {name!r} has weights of the same names",
                received=", ".join(weights[:4]),
                hint="Save the model as a .keras file",
            )
        parts: dict[str, dict[str, StoredTensor]] = {}
        for weight in weights:
            parent, _, last = weight.removesuffix(":0").rpartition("/")
            match = KERAS_2_ROLE.fullmatch(last)
            role = (KERAS_2_ROLES.get(match[1]) or match[2]) if match else last
            tensor = _stored_tensor(file, handle[name][weight], weight.removesuffix(":0"))
            parts.setdefault(parent, {})[role] = tensor
        layer = by_name.get(name)
        inner = dict(_paths_by_name(layer)) if layer is not None and layer.layers else {}
        if not inner and len(parts) <= 1:
            path = layer.group if layer is not None else name
            yield LayerGroup(path, name, _stem(path) if layer else "", _first(parts.values()))
            continue
        for parent, arrays in parts.items():
            inner_name = parent.rpartition("/")[2]
            path = inner.get(inner_name, f"{name}/{parent}")
            yield LayerGroup(path, inner_name, _stem(path) if inner_name in inner else "", arrays)


def _paths_by_name(model: ConfigLayer) -> Iterator[tuple[str, str]]:
    for path, layer in flatten_layers(model.layers, f"{model.group}/"):
        yield layer.name, path


def _first(values: Iterable[dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    return next(iter(values), {})


def _stored_tensor(file: KerasFile, dataset: h5py.Dataset, name: str) -> StoredTensor:
    location = dataset.name

    def read(rows: slice) -> np.ndarray:
        with file.open_hdf5() as handle:
            return handle[location][rows if dataset.shape else ()]

    return StoredTensor(name, tuple(dataset.shape), read)


def _stem(path: str) -> str:
    """Return the class of a group: `conv2d` of `layers/conv2d_12`."""
    return re.sub(r"_\d+$", "", path.rpartition("/")[2])


def _group_sort_key(path: str) -> tuple[bool, int, list[tuple[str, int]]]:
    """Sort groups by class and number, dense layers after all others."""
    parts = [
        (_stem(part), int((re.findall(r"_(\d+)$", part) or "0")[0])) for part in path.split("/")
    ]
    # A model used as a layer usually comes before the layers that were added to it.
    return (parts[-1][0] == "dense", -len(parts), parts)


def unsupported_layer(path: Path, name: str) -> UsageError:
    """Return the error for weights of another kind than a convolution's or a dense layer's."""
    return UsageError(
        f"{path} has weights of another kind in layer {name!r}",
        expected="convolutions and dense layers, as the papers' networks have them",
        hint="Batch normalization can be folded into the convolution before it",
    )

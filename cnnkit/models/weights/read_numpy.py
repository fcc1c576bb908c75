"""Reading NumPy's files of arrays by name (`.npz`, `.npy`), as converters from Caffe write them."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import UNKNOWN, Preprocessing, caffe_preprocessing, from_statistics
from cnnkit.models.weights.unpickle import ArrayUnpickler, Unread
from cnnkit.models.weights.weights_file import HWIO, OIHW, StoredLayer, StoredTensor, WeightsFile

# conv1__kernel, conv1_W, conv1/weights, conv1.weight, conv1:kernel:0 ...
NAME = re.compile(
    r"(?P<layer>.+?)(?:__|/|\.|:|_)(?:(?P<kernel>kernel|weights?|W|w)|biases|bias|b)(?::0)?"
)
STATISTIC = re.compile(r"(?:.*_)?(?P<kind>mean|std)(?:_(?P<order>rgb|bgr))?")
CLASS_NAMES = ("class_names", "labels")
# Numbers beside the weights, such as a learning rate.
NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def read_npz(path: Path) -> WeightsFile:
    """Read an `.npz` file of arrays by name.

    Raises:
        UsageError: If an array is not numeric, or no name is that of a kernel.
    """
    with zipfile.ZipFile(path) as archive:
        headers = {
            member.removesuffix(".npy"): _read_member_header(archive, member)
            for member in archive.namelist()
        }

    def reader(name: str) -> Callable[[slice], np.ndarray]:
        def read(part: slice) -> np.ndarray:
            with np.load(path, allow_pickle=False) as arrays:
                return arrays[name][part]

        return read

    tensors = {
        name: StoredTensor(name, shape, reader(name), True) for name, (shape, _) in headers.items()
    }
    dtypes = {name: dtype for name, (_, dtype) in headers.items()}
    return _from_arrays(path, "arrays by name (.npz)", tensors, dtypes)


def read_npy(path: Path) -> WeightsFile:
    """Read an `.npy` file of a dictionary of arrays, without running any code in it.

    Raises:
        UsageError: If the file has anything but a dictionary of arrays, or no name is that of a
            kernel.
    """
    with path.open("rb") as file:
        shape, dtype = _read_header(file)
        if not dtype.hasobject or shape != ():
            raise UsageError(
                f"{path} has one array, not the weights of a network",
                received=f"{dtype} {shape}",
            )
        content = ArrayUnpickler(io.BytesIO(file.read()), encoding="latin1").read(path)
    content = content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content
    if not isinstance(content, Mapping):
        raise UsageError(
            f"{path} has no arrays by name",
            expected="a dictionary from layers to arrays",
            received=type(content).__name__,
        )
    tensors = {}
    for name, values in _named_arrays(path, content):
        tensors[name] = StoredTensor(name, values.shape, values.__getitem__, True)
    dtypes = {name: tensor.array().dtype for name, tensor in tensors.items()}
    return _from_arrays(path, "arrays by name (.npy)", tensors, dtypes)


def _named_arrays(path: Path, content: Mapping[Any, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a dictionary of layers, which are lists, dictionaries or arrays."""
    for layer, arrays in content.items():
        if isinstance(arrays, (list, tuple)) and all(np.ndim(array) for array in arrays):
            roles = ("weights", "biases", *map(str, range(2, len(arrays))))
            arrays = dict(zip(roles, arrays, strict=False))
        if not isinstance(arrays, Mapping) or isinstance(arrays, Unread):
            arrays = {"": arrays}
        for role, values in arrays.items():
            name = f"{layer}/{role}".removesuffix("/")
            if isinstance(values, Unread) and values.path in NUMPY_SCALARS:
                continue
            if isinstance(values, Unread):
                raise UsageError(
                    f"{path} has a pickle of more than arrays",
                    received=f"{name}, a pickle that calls {values.path}",
                    hint="If you trust it, open it with numpy and save the arrays with numpy.savez",
                )
            yield name, np.asarray(values)


def _read_member_header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(member) as file:
        shape, dtype = _read_header(file)
    if dtype.hasobject:
        raise UsageError(
            f"{member} in {archive.filename} is not an array of numbers",
            expected="arrays that numpy.load reads without allow_pickle",
        )
    return shape, dtype


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    if np.lib.format.read_magic(file) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def _from_arrays(
    path: Path,
    format: str,
    tensors: Mapping[str, StoredTensor],
    dtypes: Mapping[str, np.dtype],
) -> WeightsFile:
    by_layer: dict[str, dict[str, StoredTensor]] = {}
    statistics: dict[str, np.ndarray] = {}
    class_names = None
    left_out = []
    for name, tensor in tensors.items():
        if match := NAME.fullmatch(name):
            role = "kernel" if match["kernel"] else "bias"
            by_layer.setdefault(match["layer"], {})[role] = tensor
            if dtypes[name].kind != "f":
                raise UsageError(
                    f"{path} has numbers of an unsupported type in {name}",
                    expected="floating point numbers of 64, 32 or 16 bits",
                    received=dtypes[name],
                )
        elif (match := STATISTIC.fullmatch(name)) and tensor.shape[-1:] == (3,):
            values = tensor.array().astype(np.float64)
            statistics[match["kind"]] = values[..., ::-1] if match["order"] == "bgr" else values
        elif name in CLASS_NAMES:
            class_names = tuple(map(str, tensor.array()))
        else:
            left_out.append(name)
    layers = sorted(
        (
            StoredLayer(layer, roles["kernel"], roles.get("bias"))
            for layer, roles in by_layer.items()
            if "kernel" in roles
        ),
        key=_sort_key,
    )
    unknown = [name for name in left_out if tensors[name].shape and dtypes[name].kind == "f"]
    if unknown or not layers:
        raise UsageError(
            f"{path} has arrays of unknown names",
            expected="names such as conv1__kernel, conv1_W or conv1/weights",
            received=", ".join((unknown or list(tensors))[:5]),
        )
    return WeightsFile(
        path,
        format,
        tuple(layers),
        _detect_layout(layers),
        preprocessing=_find_preprocessing([layer.name for layer in layers], statistics),
        class_names=class_names,
        metadata={"arrays left out": ", ".join(left_out)} if left_out else {},
    )


def _find_preprocessing(
    names: Sequence[str], statistics: Mapping[str, np.ndarray]
) -> Preprocessing:
    usual = caffe_preprocessing(names)
    if "mean" not in statistics:
        return usual
    stated = from_statistics(statistics["mean"], statistics.get("std"))
    if stated.origin == UNKNOWN:
        return replace(stated, channels=usual.channels)
    return replace(
        usual, mean=stated.mean, std=stated.std, reason="Caffe for BGR; the file states the mean"
    )


def _sort_key(layer: StoredLayer) -> tuple[bool, bool, list[int]]:
    """Sort in the order of the network, in which a file need not list its layers."""
    digits = [int(number) for number in re.findall(r"\d+", layer.name)]
    return len(layer.kernel.shape) == 2, layer.name.startswith("pred"), digits


def _detect_layout(layers: Iterable[StoredLayer]) -> str:
    """Detect the layout of the kernels from the one over the three colors."""
    over_colors = [
        OIHW if shape[1] == 3 and shape[2] == shape[3] and shape[0] > 3 else HWIO
        for shape in (layer.kernel.shape for layer in layers)
        if len(shape) == 4 and 3 in shape[1:3]
    ]
    return OIHW if OIHW in over_colors else HWIO

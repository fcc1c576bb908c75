"""Reading NumPy's files of arrays by name (`.npz`, `.npy`), as converters from Caffe write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._untrusted.damage import shorten
from cnnkit._untrusted.limits import MAX_FREE_SIDE, MAX_MEAN_BYTES, MAX_TEXT_LENGTH
from cnnkit._untrusted.npy_arrays import NUMBERS, open_npz, read_npy_header
from cnnkit._untrusted.pickled_arrays import decode_array, is_array
from cnnkit._untrusted.pickles import Made, Name, read_pickle
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import UNKNOWN, Preprocessing, caffe_preprocessing, from_statistics
from cnnkit.models.weights.torch_file import describe
from cnnkit.models.weights.weights_file import HWIO, OIHW, StoredLayer, StoredTensor, WeightsFile

# conv1__kernel, conv1_W, conv1/weights, conv1.weight, conv1:kernel:0 ...
NAME = re.compile(
    r"(?P<layer>.+?)(?:__|/|\.|:|_)(?:(?P<kernel>kernel|weights?|W|w)|biases|bias|b)(?::0)?"
)
STATISTIC = re.compile(r"(?:.*_)?(?P<kind>mean|std)(?:_(?P<order>rgb|bgr))?")
# Other kinds are named in an error where they are weights, and left out elsewhere.
KINDS = "biufcUSV"
CLASS_NAMES = ("class_names", "labels")
# Numbers beside the weights, such as a learning rate.
NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def read_npz(path: Path) -> WeightsFile:
    """Read an `.npz` file of arrays by name.

    Raises:
        UsageError: If an array is not numeric, or no name is that of a kernel.
    """
    arrays = open_npz(path, kinds=KINDS)

    def reader(name: str) -> Callable[[slice], np.ndarray]:
        return lambda part: arrays.read(name)[part]

    tensors = {
        name: StoredTensor(name, header.shape, reader(name), True)
        for name, header in arrays.headers.items()
    }
    dtypes = {name: header.dtype for name, header in arrays.headers.items()}
    return _from_arrays(path, "arrays by name (.npz)", tensors, dtypes)


def read_npy(path: Path) -> WeightsFile:
    """Read an `.npy` file of a dictionary of arrays, without running any code in it.

    Raises:
        UsageError: If the file has anything but a dictionary of arrays, or no name is that of a
            kernel.
    """
    with open_regular_file(path) as file:
        header = read_npy_header(file, path)
        if not header.dtype.hasobject or header.shape != ():
            raise UsageError(
                f"{path} has one array, not the weights of a network",
                received=f"{header.dtype} {header.shape}",
            )
        content = read_pickle(file, path).content
    if is_array(content):
        content = _only_object(content)
    if not isinstance(content, dict):
        raise UsageError(
            f"{path} has no arrays by name",
            expected="a dictionary from layers to arrays",
            received=describe(content),
        )
    arrays = dict(_named_arrays(path, content))
    tensors = {
        name: StoredTensor(name, values.shape, values.__getitem__, True)
        for name, values in arrays.items()
    }
    dtypes = {name: values.dtype for name, values in arrays.items()}
    return _from_arrays(path, "arrays by name (.npy)", tensors, dtypes)


def _only_object(array: Made) -> Any:
    """Return the object in an array of one object, in which NumPy stores a dictionary."""
    _version, shape, _dtype, _is_fortran, content = array.state
    return content[0] if shape == () and isinstance(content, list) and content else array


def _named_arrays(path: Path, content: Mapping[Any, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a dictionary of layers, which are lists, dictionaries or arrays."""
    for layer, arrays in content.items():
        if isinstance(arrays, (list, tuple)) and all(map(is_array, arrays)):
            roles = ("weights", "biases", *map(str, range(2, len(arrays))))
            arrays = dict(zip(roles, arrays, strict=False))
        if not isinstance(arrays, dict):
            arrays = {"": arrays}
        for role, values in arrays.items():
            name = shorten(f"{layer}/{role}".removesuffix("/"), MAX_TEXT_LENGTH)
            if isinstance(values, Made) and values.path in NUMPY_SCALARS:
                continue
            if is_array(values):
                yield name, decode_array(values, f"{name} in {path}")
            elif isinstance(values, (Made, Name)):
                raise UsageError(
                    f"{path} has a pickle of more than arrays",
                    received=f"{name}, a pickle that calls {values.path}",
                    hint="If you trust it, open it with numpy and save the arrays with numpy.savez",
                )
            elif isinstance(values, (bool, int, float, str, bytes, list, tuple)):
                yield name, _plain_array(values, f"{name} in {path}")


def _plain_array(values: Any, origin: str) -> np.ndarray:
    """Return a number, a text or a list of them as an array."""
    items = values if isinstance(values, (list, tuple)) else [values]
    if len(items) > MAX_FREE_SIDE or not all(
        isinstance(one, (bool, int, float)) or (isinstance(one, str) and len(one) <= 256)
        for one in items
    ):
        raise UsageError(f"{origin} is not an array", received=shorten(values, 80))
    return np.asarray(values)


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
            if dtypes[name].kind not in NUMBERS:
                raise UsageError(f"{path} has a {name} that is not numbers")
            values = tensor.array(MAX_MEAN_BYTES).astype(np.float64)
            statistics[match["kind"]] = values[..., ::-1] if match["order"] == "bgr" else values
        elif name in CLASS_NAMES:
            class_names = _class_names(path, tensor, dtypes[name])
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


def _class_names(path: Path, tensor: StoredTensor, dtype: np.dtype) -> tuple[str, ...]:
    if len(tensor.shape) != 1 or dtype.itemsize > MAX_TEXT_LENGTH:
        raise UsageError(f"{path} has names of classes that are not a list of texts")
    return tuple(map(str, tensor.array(MAX_MEAN_BYTES)))


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

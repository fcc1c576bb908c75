"""Reading NumPy's files of arrays by name (`.npz`, `.npy`), as converters from Caffe write them.

An `.npy` file with a dictionary is a pickle. NumPy pickles arrays with its private function
`_reconstruct`, in `numpy.core.multiarray` before NumPy 2 and in `numpy._core.multiarray` since, so
the unpickler here has to know these names. Nothing else in a file is called.
"""

from __future__ import annotations

import codecs
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import caffe_preprocessing
from cnnkit.models.weights.weights_file import HWIO, OIHW, StoredLayer, StoredTensor, WeightsFile

# conv1__kernel, conv1_W, conv1/weights, conv1.weight, conv1:kernel:0 ...
NAME = re.compile(
    r"(?P<layer>.+?)(?:__|/|\.|:|_)(?:(?P<kernel>kernel|weights?|W|w)|biases|bias|b)(?::0)?"
)
MEAN = re.compile(r"(?:.*_)?mean(?:_(?P<order>rgb|bgr))?")
CLASS_NAMES = ("class_names", "labels")
# Taken from an array rather than imported, because its module is private.
RECONSTRUCT = np.empty(0).__reduce__()[0]
# All the functions that a pickle of a dictionary of arrays needs.
ALLOWED = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray._reconstruct": RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": RECONSTRUCT,
    "_codecs.encode": codecs.encode,
}


def read_npz(path: Path) -> WeightsFile:
    """Read an `.npz` file of arrays by name.

    Raises:
        UsageError: If an array is not numeric, or no name is that of a kernel.
    """
    with zipfile.ZipFile(path) as archive:
        shapes = {
            member.removesuffix(".npy"): _read_shape(archive, member)
            for member in archive.namelist()
        }

    def reader(name: str) -> Callable[[slice], np.ndarray]:
        def read(part: slice) -> np.ndarray:
            with np.load(path, allow_pickle=False) as arrays:
                return arrays[name][part]

        return read

    tensors = {
        name: StoredTensor(name, shape, reader(name), True) for name, shape in shapes.items()
    }
    return _from_arrays(path, "arrays by name (.npz)", tensors)


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
        content = _ArrayUnpickler(io.BytesIO(file.read()), encoding="latin1").load()
    content = content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content
    if not isinstance(content, Mapping):
        raise UsageError(
            f"{path} has no arrays by name",
            expected="a dictionary from layers to arrays",
            received=type(content).__name__,
        )
    tensors = {}
    for layer, arrays in content.items():
        if isinstance(arrays, (list, tuple)):
            arrays = dict(zip(("weights", "biases"), arrays, strict=False))
        if not isinstance(arrays, Mapping):
            arrays = {"": arrays}
        for role, values in arrays.items():
            name, array = f"{layer}/{role}".removesuffix("/"), np.asarray(values)
            tensors[name] = StoredTensor(name, array.shape, array.__getitem__, True)
    return _from_arrays(path, "arrays by name (.npy)", tensors)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of containers and arrays."""

    def find_class(self, module: str, name: str) -> Any:
        function = f"{module}.{name}"
        if function not in ALLOWED:
            raise UsageError(
                "The `.npy` file has a pickle of more than arrays",
                received=f"a pickle that calls {function}",
                hint="If you trust it, open it with numpy and save the arrays with numpy.savez",
            )
        return ALLOWED[function]


def _read_shape(archive: zipfile.ZipFile, member: str) -> tuple[int, ...]:
    with archive.open(member) as file:
        shape, dtype = _read_header(file)
    if dtype.hasobject:
        raise UsageError(
            f"{member} in {archive.filename} is not an array of numbers",
            expected="arrays that numpy.load reads without allow_pickle",
        )
    return shape


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    if np.lib.format.read_magic(file) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def _from_arrays(path: Path, format: str, tensors: Mapping[str, StoredTensor]) -> WeightsFile:
    by_layer: dict[str, dict[str, StoredTensor]] = {}
    mean = class_names = None
    for name, tensor in tensors.items():
        if match := NAME.fullmatch(name):
            role = "kernel" if match["kernel"] else "bias"
            by_layer.setdefault(match["layer"], {})[role] = tensor
        elif match := MEAN.fullmatch(name):
            values = tensor.array().astype(np.float64)
            mean = values[..., ::-1] if match["order"] == "bgr" else values
        elif name in CLASS_NAMES:
            class_names = tuple(map(str, tensor.array()))
    layers = tuple(
        StoredLayer(layer, roles["kernel"], roles.get("bias"))
        for layer, roles in by_layer.items()
        if "kernel" in roles
    )
    if not layers:
        raise UsageError(
            f"{path} has arrays of unknown names",
            expected="names such as conv1__kernel, conv1_W or conv1/weights",
            received=", ".join(list(tensors)[:5]),
        )
    preprocessing = caffe_preprocessing([layer.name for layer in layers])
    if mean is not None:
        preprocessing = replace(
            preprocessing, mean=mean, reason="Caffe for BGR; the file states the mean"
        )
    return WeightsFile(
        path,
        format,
        layers,
        _detect_layout(layers),
        preprocessing=preprocessing,
        class_names=class_names,
    )


def _detect_layout(layers: tuple[StoredLayer, ...]) -> str:
    """Detect the layout of the kernels from the one over the three colors."""
    over_colors = [
        OIHW if shape[1] == 3 and shape[2] == shape[3] and shape[0] > 3 else HWIO
        for shape in (layer.kernel.shape for layer in layers)
        if len(shape) == 4 and 3 in shape[1:3]
    ]
    return OIHW if OIHW in over_colors else HWIO

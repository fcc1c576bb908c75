"""Arrays by name in `.npz` and `.npy`, as converters from Caffe have written them."""

from __future__ import annotations

import codecs
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import Preprocessing, caffe_preprocessing
from cnnkit.models.weights.weights_file import HWIO, OIHW, StoredLayer, StoredTensor, WeightsFile

# conv1__kernel, conv1_W, conv1/weights, conv1.weight, conv1:kernel:0 ...
NAME = re.compile(
    r"(?P<layer>.+?)(?:__|/|\.|:|_)(?:(?P<kernel>kernel|weights?|W|w)|biases|bias|b)(?::0)?"
)
MEAN = re.compile(r"(?:.*_)?mean(?:_(?P<order>rgb|bgr))?")
CLASS_NAMES = ("class_names", "labels")
# All that a dictionary of arrays needs of a pickle. Nothing else is called, whatever a file says.
RECONSTRUCT = np.empty(0).__reduce__()[0]
ALLOWED = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray._reconstruct": RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": RECONSTRUCT,
    "_codecs.encode": codecs.encode,
}


def read_npz(path: Path) -> WeightsFile:
    """Reads an `.npz` file of arrays by name."""
    with zipfile.ZipFile(path) as archive:
        headers = {
            member.removesuffix(".npy"): _header(archive, member) for member in archive.namelist()
        }

    def reader(name: str) -> Callable[[slice], np.ndarray]:
        def read(place: slice) -> np.ndarray:
            with np.load(path, allow_pickle=False) as arrays:
                return arrays[name][place]

        return read

    tensors = {
        name: StoredTensor(name, shape, reader(name), True) for name, shape in headers.items()
    }
    return _by_name(path, "arrays by name (.npz)", tensors)


def read_npy(path: Path) -> WeightsFile:
    """Reads an `.npy` file that holds a dictionary of arrays.

    Such a dictionary is a pickle. Only NumPy's own constructors in it are followed, so that no
    code in the file runs.
    """
    with path.open("rb") as file:
        shape, dtype = _read_header(file)
        if not dtype.hasobject or shape != ():
            raise UsageError(
                f"{path} holds one array, not the weights of a network",
                received=f"{dtype} {shape}",
            )
        content = _Arrays(io.BytesIO(file.read()), encoding="latin1").load()
    content = content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content
    if not isinstance(content, Mapping):
        raise UsageError(
            f"{path} holds no arrays by name",
            expected="a dictionary from layers to arrays",
            received=type(content).__name__,
        )
    tensors = {}
    for layer, parts in content.items():
        if isinstance(parts, (list, tuple)):
            parts = dict(zip(("weights", "biases"), parts, strict=False))
        if not isinstance(parts, Mapping):
            parts = {"": parts}
        for part, values in parts.items():
            name, array = f"{layer}/{part}".removesuffix("/"), np.asarray(values)
            tensors[name] = StoredTensor(name, array.shape, array.__getitem__, True)
    return _by_name(path, "arrays by name (.npy)", tensors)


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        wanted = f"{module}.{name}"
        if wanted not in ALLOWED:
            raise UsageError(
                "The .npy file holds more than arrays",
                received=f"a pickle that asks for {wanted}",
                hint="Open it only where you trust it, and save the arrays with numpy.savez",
            )
        return ALLOWED[wanted]


def _header(archive: zipfile.ZipFile, member: str) -> tuple[int, ...]:
    with archive.open(member) as file:
        shape, dtype = _read_header(file)
    if dtype.hasobject:
        raise UsageError(
            f"{member} in {archive.filename} is no array of numbers",
            expected="arrays that numpy.load reads without allow_pickle",
        )
    return shape


def _read_header(file) -> tuple[tuple[int, ...], np.dtype]:
    if np.lib.format.read_magic(file) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def _by_name(path: Path, kind: str, tensors: Mapping[str, StoredTensor]) -> WeightsFile:
    parts: dict[str, dict[str, StoredTensor]] = {}
    preprocessing = class_names = None
    for name, tensor in tensors.items():
        if match := NAME.fullmatch(name):
            role = "kernel" if match["kernel"] else "bias"
            parts.setdefault(match["layer"], {})[role] = tensor
        elif match := MEAN.fullmatch(name):
            values = tensor.array().astype(np.float64)
            preprocessing = Preprocessing(values[..., ::-1] if match["order"] == "bgr" else values)
        elif name in CLASS_NAMES:
            class_names = tuple(map(str, tensor.array()))
    layers = tuple(
        StoredLayer(layer, roles["kernel"], roles.get("bias"))
        for layer, roles in parts.items()
        if "kernel" in roles
    )
    if not layers:
        raise UsageError(
            f"{path} has arrays of unknown names",
            expected="names such as conv1__kernel, conv1_W or conv1/weights",
            received=", ".join(list(tensors)[:5]),
        )
    names = [layer.name for layer in layers]
    return WeightsFile(
        path,
        kind,
        layers,
        _layout(layers),
        channels="BGR",
        preprocessing=preprocessing or caffe_preprocessing(names),
        class_names=class_names,
        facts={"order of colors": "BGR is assumed, as in Caffe"},
    )


def _layout(layers: tuple[StoredLayer, ...]) -> str:
    """Tells the layout from the kernel that sees the three colors."""
    over_colors = [
        OIHW if shape[1] == 3 and shape[2] == shape[3] and shape[0] > 3 else HWIO
        for shape in (layer.kernel.shape for layer in layers)
        if len(shape) == 4 and 3 in shape[1:3]
    ]
    return OIHW if OIHW in over_colors else HWIO

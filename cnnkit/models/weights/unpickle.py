"""Reading pickles of arrays and tensors without running the code that they name.

A pickle names functions to call. Here a name stands for the real function only if that makes an
array or a dictionary; any other name becomes an `Unread`, whose calls do nothing. PyTorch writes a
pickle with the names, shapes and places of the tensors, and their numbers beside it.
"""

from __future__ import annotations

import codecs
import collections
import operator
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.errors import UsageError

# NumPy pickles arrays with its private function `_reconstruct`, in `numpy.core.multiarray` before
# NumPy 2 and in `numpy._core.multiarray` since. Taken from an array, because its module is private.
RECONSTRUCT = np.empty(0).__reduce__()[0]
ALLOWED = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray._reconstruct": RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": RECONSTRUCT,
    "_codecs.encode": codecs.encode,
    "collections.OrderedDict": collections.OrderedDict,
}


# Entries of a checkpoint beside the network, whose tensors have the names of its layers too.
TRAINING_STATE = re.compile(r"optim|(lr_?)?sched|.*scaler|.*momentum", re.IGNORECASE)
# NumPy's types by PyTorch's storages. NumPy has no bfloat16, the upper half of a float32.
BFLOAT16 = "torch.BFloat16Storage"
FLOATS = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    BFLOAT16: "<u2",
}
# Bytes of an element, by the name of the storage: what the older format does not say.
ELEMENT_BYTES = {
    **{f"torch.{name}Storage": 1 for name in ("Bool", "Byte", "Char", "QInt8", "QUInt8")},
    **{f"torch.{name}Storage": 2 for name in ("Short", "Half", "BFloat16")},
    **{f"torch.{name}Storage": 4 for name in ("Int", "Float", "QInt32")},
    **{f"torch.{name}Storage": 8 for name in ("Long", "Double", "ComplexFloat")},
    "torch.ComplexDoubleStorage": 16,
}
ZIP_HEADER_BYTES = 30

# First byte and number of bytes of each storage, by its key.
Places = dict[str, tuple[int, int]]


class Unread(dict[Any, Any]):
    """An object whose class was not looked up: a dictionary of its attributes or items.

    Attributes:
        path: Module and name of its class, or of the function that would have made it.
    """

    path = ""
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        # A class with slots has a second dictionary.
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.update(part)

    def append(self, item: Any) -> None:
        """Leave out an item of a list."""

    def extend(self, items: Any) -> None:
        """Leave out items of a list."""

    def add(self, item: Any) -> None:
        """Leave out an item of a set."""


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Turn whatever the objects of a damaged pickle raise into one clear error."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{file} is damaged or incomplete", received=repr(error)) from error


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler of containers and arrays; any other object becomes an `Unread`.

    Attributes:
        unread: The classes that were not looked up, by module and name.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.unread: dict[str, type[Unread]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a function or class of the pickle."""
        path = f"{module}.{name}"
        if path in ALLOWED:
            return ALLOWED[path]
        # A class of its own for each file, so that a pickle cannot change what another one uses.
        return self.unread.setdefault(path, type("Unread", (Unread,), {"path": path}))

    def read(self, file: Path) -> Any:
        """Read the next pickle of `file`, which names it in errors.

        Raises:
            UsageError: If the pickle is damaged.
        """
        with _damage_named(file):
            return self.load()


@dataclass(frozen=True)
class PickledTensor:
    """A tensor in a pickle: the elements of a storage that it shows."""

    type: str
    key: str
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _pickled_tensor(storage: Any, first: Any, shape: Any, strides: Any) -> PickledTensor:
    kind, key, offset = storage
    shape, strides = (tuple(map(operator.index, sides)) for sides in (shape, strides))
    return PickledTensor(kind, key, operator.index(offset + first), shape, strides)


class _StateUnpickler(ArrayUnpickler):
    """Unpickler of state dictionaries; it collects the type of each storage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.storage_types: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda storage, *place: _pickled_tensor(storage, *place[:3])
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if (module, name) == ("torch._tensor", "_rebuild_from_type_v2"):
            return lambda function, _type, arguments, _state: function(*arguments)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        kind, content, key, *more = pid
        if kind != "storage":
            return content
        # The older format has views of storages: their key, their first element and their size.
        view = more[2] if more[2:] else None
        self.storage_types[str(key)] = content.path
        return (content.path, str(key), view[1] if view else 0)


@dataclass(frozen=True)
class TorchFile:
    """What `torch.save` wrote.

    Attributes:
        entries: Tensors, arrays and other objects, by their keys in the nested dictionaries, joined
            by dots.
        reader: Function from a tensor to the function that reads rows of it, as float32.
        foreign: Classes of other packages, whose objects were not made.
    """

    content: Any
    entries: Mapping[str, Any]
    reader: Callable[[PickledTensor], Callable[[slice], np.ndarray]]
    foreign: list[str]


def read_torch_file(path: Path) -> TorchFile:
    """Read the pickle of a file that `torch.save` wrote.

    Raises:
        UsageError: If the file is a TorchScript archive, of another byte order, or damaged.
    """
    read = _read_archive if zipfile.is_zipfile(path) else _read_old_format
    with _damage_named(path):
        content, unpickler, places = read(path)
        entries = dict(_leaves(content))
    # The objects of PyTorch and NumPy are numbers and settings.
    foreign = [name for name in unpickler.unread if not name.startswith(("torch.", "numpy."))]

    def reader(tensor: PickledTensor) -> Callable[[slice], np.ndarray]:
        return lambda part: _read_rows(path, *places[tensor.key], tensor, part)

    return TorchFile(content, entries, reader, foreign)


def _read_archive(path: Path) -> tuple[Any, _StateUnpickler, Places]:
    """Return the pickled object, its unpickler, and the places of the storages."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {info.filename: info for info in archive.infolist()}
        pickled = next(name for name in members if f"/{name}".endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            raise UsageError(
                f"{path} is a TorchScript archive: a program together with its weights",
                expected="the weights alone",
                hint="Where PyTorch is installed:"
                f" torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')",
            )
        order = f"{folder}byteorder"
        if order in members and archive.read(order) != b"little":
            raise _wrong_byte_order(path)
        with archive.open(pickled) as member:
            unpickler = _StateUnpickler(member)
            content = unpickler.read(path)
        places = {}
        for name, info in members.items():
            if name.startswith(f"{folder}data/"):
                if info.compress_type != zipfile.ZIP_STORED:
                    raise UsageError(
                        f"{path} was compressed after PyTorch wrote it",
                        hint="Unpack it, and pack it again without compression: zip -0 -r",
                    )
                file.seek(info.header_offset)
                # The header ends with the lengths of the name and of the extra field.
                header = file.read(ZIP_HEADER_BYTES)
                start = info.header_offset + ZIP_HEADER_BYTES
                start += sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
                places[name.removeprefix(f"{folder}data/")] = (start, info.file_size)
    return content, unpickler, places


def _read_old_format(path: Path) -> tuple[Any, _StateUnpickler, Places]:
    """Do the same for the format before PyTorch 1.6: pickles, then the storages in a row."""
    with path.open("rb") as file:
        _magic, _version, system = (_StateUnpickler(file).read(path) for _ in range(3))
        if not system["little_endian"]:
            raise _wrong_byte_order(path)
        unpickler = _StateUnpickler(file)
        content = unpickler.read(path)
        places = {}
        for key in map(str, _StateUnpickler(file).read(path)):
            elements = int.from_bytes(file.read(8), "little")
            size = elements * ELEMENT_BYTES[unpickler.storage_types[key]]
            places[key] = (file.tell(), size)
            file.seek(size, os.SEEK_CUR)
    return content, unpickler, places


def _wrong_byte_order(path: Path) -> UsageError:
    return UsageError(
        f"{path} was written on a machine with another byte order", expected="little endian"
    )


def _read_rows(path: Path, start: int, size: int, tensor: PickledTensor, part: slice) -> np.ndarray:
    # Mapped anew for every block: the pages of an open file count as memory.
    storage = np.memmap(path, np.uint8, "r", start, (size,))
    dtype = np.dtype(FLOATS[tensor.type])
    # NumPy refuses a shape that does not lie within the storage.
    array = np.ndarray(
        tensor.shape,
        dtype,
        storage,
        tensor.first * dtype.itemsize,
        [stride * dtype.itemsize for stride in tensor.strides],
    )[part]
    if tensor.type == BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def _leaves(
    content: Any, name: tuple[str, ...] = (), above: tuple[int, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """Yield what nested dictionaries hold, with their keys joined by dots.

    The parameters and the modules of a pickled model are read as those of its state dictionary.
    """
    if id(content) in above:
        return
    above = (*above, id(content))
    if isinstance(content, Unread) and {"_parameters", "_modules"} <= content.keys():
        parts = [content.get(key) or {} for key in ("_parameters", "_buffers", "_modules")]
        content = {key: value for part in parts for key, value in part.items()}
    if not isinstance(content, Mapping) or isinstance(content, Unread):
        yield ".".join(name), content
    if isinstance(content, Mapping):
        for key, value in content.items():
            if not TRAINING_STATE.match(str(key)):
                yield from _leaves(value, (*name, str(key)), above)


def describe(value: Any) -> str:
    """Return the type of an object of a pickle, as the pickle names it."""
    if isinstance(value, Unread):
        return value.path
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return value.type if isinstance(value, PickledTensor) else type(value).__name__

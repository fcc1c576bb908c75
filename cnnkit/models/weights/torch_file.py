"""Reading the files of `torch.save` without PyTorch, and without calling what their pickle names.

PyTorch writes a pickle with the names, shapes and places of the tensors, and their numbers beside
it.
"""

from __future__ import annotations

import operator
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit._untrusted.limits import (
    MAX_PICKLE_DEPTH,
    MAX_PICKLE_ENTRIES,
    MAX_TEXT_LENGTH,
    MAX_TORCH_PICKLE_BYTES,
)
from cnnkit._untrusted.pickled_arrays import ENCODE, decode_array, is_array
from cnnkit._untrusted.pickles import ORDERED, Made, Name, Persistent, Pickled, read_pickle
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit._untrusted.zip_archives import open_member, open_zip, read_member, stored_start
from cnnkit.errors import UsageError

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
REBUILD_TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
REBUILD_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"

# First byte and number of bytes of each storage, by its key.
Places = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class PickledTensor:
    """A tensor in a pickle: the elements of a storage that it shows."""

    type: str
    key: str
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class TorchFile:
    """What `torch.save` wrote.

    Attributes:
        content: The object that was saved.
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
    with damage_as_error(path, UsageError):
        pickled, places = read(path)
        entries = dict(_leaves(path, pickled.content))
    # The objects of PyTorch and NumPy are numbers and settings.
    known = (ORDERED, ENCODE)
    foreign = [
        name
        for name in pickled.names
        if not name.startswith(("torch.", "numpy.")) and name not in known
    ]

    def reader(tensor: PickledTensor) -> Callable[[slice], np.ndarray]:
        return lambda part: _read_rows(path, *places[tensor.key], tensor, part)

    return TorchFile(pickled.content, entries, reader, foreign)


def _read_archive(path: Path) -> tuple[Pickled, Places]:
    """Return the pickled object and the places of the storages."""
    with open_zip(path) as archive:
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
        if order in members and read_member(archive, order, max_bytes=100) != b"little":
            raise _wrong_byte_order(path)
        with open_member(archive, pickled) as member:
            content = read_pickle(member, path, max_bytes=MAX_TORCH_PICKLE_BYTES)
        places = {}
        for name, info in members.items():
            if name.startswith(f"{folder}data/"):
                if info.compress_type != zipfile.ZIP_STORED:
                    raise UsageError(
                        f"{path} was compressed after PyTorch wrote it",
                        hint="Unpack it, and pack it again without compression: zip -0 -r",
                    )
                start = stored_start(archive, info)
                places[name.removeprefix(f"{folder}data/")] = (start, info.file_size)
    return content, places


def _read_old_format(path: Path) -> tuple[Pickled, Places]:
    """Do the same for the format before PyTorch 1.6: pickles, then the storages in a row."""
    with open_regular_file(path) as file:

        def read_next() -> Pickled:
            return read_pickle(file, path, max_bytes=MAX_TORCH_PICKLE_BYTES)

        _magic, _version, system = (read_next().content for _ in range(3))
        if not system["little_endian"]:
            raise _wrong_byte_order(path)
        pickled = read_next()
        types = {str(key): kind for kind, key, _ in map(_storage, pickled.persistent) if kind}
        places = {}
        for key in map(str, read_next().content):
            elements = int.from_bytes(file.read(8), "little")
            size = elements * ELEMENT_BYTES[types[key]]
            places[key] = (file.tell(), size)
            file.seek(size, os.SEEK_CUR)
        if file.tell() > file.seek(0, os.SEEK_END):
            raise UsageError(f"{path} is damaged or incomplete", received="too few numbers")
    return pickled, places


def _wrong_byte_order(path: Path) -> UsageError:
    return UsageError(
        f"{path} was written on a machine with another byte order", expected="little endian"
    )


def _storage(reference: Persistent) -> tuple[str, str, int]:
    """Return the type, the key and the first element of a storage; an empty type for no storage."""
    kind, content, *more = reference.content
    if kind != "storage":
        return "", "", 0
    key, *more = more
    # The older format has views of storages: their key, their first element and their size.
    view = more[2] if more[2:] else None
    return content.path, str(key), view[1] if view else 0


def _tensor(value: Made) -> PickledTensor:
    storage, first, shape, strides = value.arguments[:4]
    kind, key, offset = _storage(storage)
    shape, strides = (tuple(map(operator.index, sides)) for sides in (shape, strides))
    if any(side < 0 for side in shape):
        raise ValueError(f"a tensor of shape {shorten(str(shape))}")
    return PickledTensor(kind, key, operator.index(offset + first), shape, strides)


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


def _leaves(path: Path, content: Any) -> Iterator[tuple[str, Any]]:
    """Yield what nested dictionaries hold, with their keys joined by dots.

    The parameters and the modules of a pickled model are read as those of its state dictionary.
    """
    # A value, its name, and the dictionaries around it, in which it may be itself.
    waiting: list[tuple[Any, tuple[str, ...], tuple[int, ...]]] = [(content, (), ())]
    for _ in range(MAX_PICKLE_ENTRIES):
        if not waiting:
            return
        value, name, above = waiting.pop()
        # Of the object in the pickle; the number of one that was made here may be used again.
        identity = id(value)
        if identity in above:
            continue
        value = _entry(path, value)
        if not isinstance(value, dict):
            yield ".".join(name), value
            continue
        if len(above) >= MAX_PICKLE_DEPTH or any(len(str(key)) > MAX_TEXT_LENGTH for key in value):
            break
        waiting += [
            (inner, (*name, str(key)), (*above, identity))
            for key, inner in reversed(value.items())
            if not TRAINING_STATE.match(str(key))
        ]
    raise UsageError(
        f"{path} has absurdly many or deep entries",
        expected=f"at most {MAX_PICKLE_ENTRIES:,} in {MAX_PICKLE_DEPTH} dictionaries",
    )


def _entry(path: Path, value: Any) -> Any:
    """Return a tensor, an array, a dictionary, or what stands for another object."""
    for _ in range(MAX_PICKLE_DEPTH):
        if not isinstance(value, Made):
            return value
        if value.path in REBUILD_TENSOR:
            return _tensor(value)
        if is_array(value):
            return _array_of(path, value)
        if value.path.startswith(REBUILD_PARAMETER):
            value = value.arguments[0]
        elif value.path == REBUILD_FROM_TYPE:
            function, _type, arguments, _state = value.arguments
            value = Made(function.path, arguments)
        else:
            return _module_entries(value)
    return value


def _array_of(path: Path, value: Made) -> Any:
    dtype = value.state[2] if isinstance(value.state, tuple) and len(value.state) > 2 else None
    # Arrays of texts or of objects stand beside the weights in some checkpoints.
    is_object = isinstance(dtype, Made) and dtype.arguments[:1] in (("O8",), ("O",))
    return value if is_object else decode_array(value, path)


def _module_entries(value: Made) -> Any:
    """Return the parameters and modules of a pickled module; other objects as they are."""
    parts = value.state if isinstance(value.state, tuple) else (value.state,)
    attributes = {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}
    if not {"_parameters", "_modules"} <= attributes.keys():
        return value
    groups = [attributes.get(key) or {} for key in ("_parameters", "_buffers", "_modules")]
    return {key: inner for group in groups for key, inner in group.items()}


def describe(value: Any) -> str:
    """Return the type of an object of a pickle, as the pickle names it."""
    if isinstance(value, (Made, Name)):
        return value.path
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return value.type if isinstance(value, PickledTensor) else type(value).__name__

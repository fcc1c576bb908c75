"""NumPy's arrays in `.npy` and `.npz` files: the header is checked before a number is read.

Pickled arrays are refused; `pickles` reads dictionaries of arrays without running code.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit._untrusted.limits import (
    MAX_ARRAY_AXES,
    MAX_FREE_SIDE,
    MAX_NPY_HEADER_BYTES,
    MIB,
)
from cnnkit._untrusted.regular_files import open_regular_file
from cnnkit._untrusted.zip_archives import open_zip
from cnnkit.errors import DataError

# Booleans, integers and floats; `U` and `S` are texts.
NUMBERS, FLOATS = "biuf", "f"
READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    # The same, with names in UTF-8.
    (3, 0): np.lib.format.read_array_header_2_0,
}
SUFFIX = ".npy"


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and type of an array in a file, and the number of its bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool

    @property
    def bytes(self) -> int:
        """Number of bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy_header(file: BinaryIO, origin: str | Path) -> ArrayHeader:
    """Read the header of an `.npy` file, up to the first byte of the numbers.

    The type may be any, also of Python objects. `check_array` compares it with what is there.

    Args:
        file: The file, from its beginning.
        origin: Its name, for messages.

    Raises:
        DataError: If the header is damaged or longer than `MAX_NPY_HEADER_BYTES`.
    """
    with damage_as_error(origin):
        version = np.lib.format.read_magic(file)
        if version not in READERS:
            raise DataError(f"{origin} has an unknown version of .npy", received=version)
        length = file.read(2 if version == (1, 0) else 4)
        stated = int.from_bytes(length, "little")
        if stated > MAX_NPY_HEADER_BYTES:
            raise DataError(
                f"{origin} has an absurd header",
                expected=f"at most {MAX_NPY_HEADER_BYTES:,} bytes",
                received=f"{stated:,}",
            )
        header = io.BytesIO(length + file.read(stated))
        shape, fortran_order, dtype = READERS[version](header)
        if len(shape) > MAX_ARRAY_AXES or not all(type(n) is int and n >= 0 for n in shape):
            raise DataError(f"{origin} has an absurd shape", received=shorten(str(shape)))
    return ArrayHeader(tuple(shape), dtype, fortran_order)


def check_array(
    header: ArrayHeader,
    origin: str | Path,
    *,
    available: int,
    max_bytes: int | None = None,
    kinds: str = NUMBERS,
) -> None:
    """Check that an array has the type that is expected, and lies within the bytes that exist.

    Args:
        header: Result of `read_npy_header`.
        origin: Name of the array, for messages.
        available: Number of bytes behind the header.
        max_bytes: Largest number of bytes of the array; None for any.
        kinds: Accepted kinds of NumPy's types.

    Raises:
        DataError: If it does not.
    """
    dtype = header.dtype
    if dtype.kind not in kinds or dtype.hasobject or not dtype.itemsize or dtype.subdtype:
        texts = " or texts" if set("US") <= set(kinds) else ""
        expected = ("numbers" if set(NUMBERS) <= set(kinds) else f"the kinds {kinds}") + texts
        raise DataError(f"{origin} is not an array of {expected}", received=shorten(str(dtype), 80))
    # An empty array may state any other side, over which a loop would not end.
    if header.bytes > available or max(header.shape, default=0) > max(available, MAX_FREE_SIDE):
        raise DataError(
            f"{origin} is damaged or incomplete",
            expected=f"{header.bytes:,} bytes of an array of shape {header.shape}",
            received=f"{available:,}",
        )
    if max_bytes is not None and header.bytes > max_bytes:
        raise DataError(
            f"{origin} is too large",
            expected=f"at most {max_bytes:,} bytes",
            received=f"{header.bytes:,}",
        )


def load_npy(path: str | Path, *, max_bytes: int, kinds: str = NUMBERS) -> np.ndarray:
    """Read an `.npy` file of one array.

    Args:
        path: The file.
        max_bytes: Largest number of bytes of the array.
        kinds: Accepted kinds of NumPy's types.

    Raises:
        DataError: If it is not a regular file, is damaged, of another type, or too large.
    """
    with open_regular_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        header = read_npy_header(file, path)
        check_array(header, path, available=size - file.tell(), max_bytes=max_bytes, kinds=kinds)
        return _read_numbers(file, header, path)


def map_npy(path: str | Path, *, kinds: str = NUMBERS) -> np.ndarray:
    """Map an `.npy` file of one array into memory, for reading.

    Raises:
        DataError: As `load_npy`.
    """
    with open_regular_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        header = read_npy_header(file, path)
        start = file.tell()
        check_array(header, path, available=size - start, kinds=kinds)
        order: Any = "F" if header.fortran_order else "C"
        if not header.bytes:  # No bytes cannot be mapped.
            return np.zeros(header.shape, header.dtype, order)
        with damage_as_error(path):
            return np.memmap(cast("Any", file), header.dtype, "r", start, header.shape, order)


@dataclass(frozen=True)
class NpzArrays:
    """The arrays of an `.npz` file, which are read one by one.

    Attributes:
        path: The file.
        headers: Shape and type of each array, by its name.
    """

    path: Path
    headers: Mapping[str, ArrayHeader]

    def read(self, name: str) -> np.ndarray:
        """Read an array.

        Raises:
            DataError: If there is none of that name, or it is damaged.
        """
        origin = f"{name} in {self.path}"
        with (
            open_zip(self.path) as archive,
            damage_as_error(origin),
            archive.open(name + SUFFIX) as member,
        ):
            file = cast("BinaryIO", member)
            if read_npy_header(file, origin) != self.headers.get(name):
                raise DataError(f"{origin} has changed")
            return _read_numbers(file, self.headers[name], origin)


def open_npz(
    path: str | Path, *, max_bytes: int | None = None, kinds: str = NUMBERS + "US"
) -> NpzArrays:
    """Read the headers of an `.npz` file.

    Args:
        path: The file.
        max_bytes: Largest number of bytes of all arrays together; None for what
            `limits.MAX_ZIP_RATIO` allows.
        kinds: Accepted kinds of NumPy's types.

    Raises:
        DataError: As `open_zip`; or if a member is not an array of numbers or texts, states more
            numbers than the member has, or all arrays have more than `max_bytes`.
    """
    headers = {}
    with open_zip(path) as archive:
        for info in archive.infolist():
            origin = f"{info.filename} in {path}"
            if not info.filename.endswith(SUFFIX):
                raise DataError(f"{origin} is not an array of NumPy")
            with damage_as_error(origin), archive.open(info) as member:
                header = read_npy_header(cast("BinaryIO", member), origin)
                available = info.file_size - member.tell()
            check_array(header, origin, available=available, kinds=kinds)
            headers[info.filename.removesuffix(SUFFIX)] = header
    total = sum(header.bytes for header in headers.values())
    if max_bytes is not None and total > max_bytes:
        raise DataError(
            f"{path} is too large", expected=f"at most {max_bytes:,} bytes", received=f"{total:,}"
        )
    return NpzArrays(Path(path), headers)


def load_npz(
    path: str | Path, *, max_bytes: int, kinds: str = NUMBERS + "US"
) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz` file.

    Args:
        path: The file.
        max_bytes: Largest number of bytes of all arrays together.
        kinds: Accepted kinds of NumPy's types.

    Raises:
        DataError: As `open_npz`.
    """
    arrays = open_npz(path, max_bytes=max_bytes, kinds=kinds)
    return {name: arrays.read(name) for name in arrays.headers}


def _read_numbers(file: BinaryIO, header: ArrayHeader, origin: str | Path) -> np.ndarray:
    """Read the bytes behind a header, a megabyte at a time, into the array."""
    array = np.empty(math.prod(header.shape), header.dtype)
    view: Any = memoryview(array.view(np.uint8)) if array.size else memoryview(b"")  # type: ignore[arg-type]
    done = 0
    while done < len(view):
        count = file.readinto(view[done : done + MIB])  # type: ignore[attr-defined]
        if not count:
            raise DataError(f"{origin} is damaged or incomplete")
        done += count
    return array.reshape(header.shape, order="F" if header.fortran_order else "C")

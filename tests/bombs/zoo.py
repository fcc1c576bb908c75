"""The list of bombs: files and folders that try to harm the commands that open them."""

from __future__ import annotations

import dataclasses
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

GIGABYTE = 1 << 30
# Size of the sparse files: more than any limit, and no space on the disk.
SPARSE = 10 * GIGABYTE
# Files beside the bombs that no command may open.
SECRET = "secret.txt"
SECRET_HDF5 = "secret.h5"


@dataclasses.dataclass(frozen=True)
class Bomb:
    """A file or folder of a kind.

    Attributes:
        name: Name of the file or folder.
        kind: What commands take it for: a key of `tests.bombs.commands.COMMANDS`.
        write: Function that writes it to a path. A folder is a copy of a valid one at first.
        harmless: Whether a command may also succeed, within its limits and without other files.
    """

    name: str
    kind: str
    write: Callable[[Path], object]
    harmless: bool = False


ZOO: list[Bomb] = []


def bomb(kind: str, *names: str, harmless: bool = False) -> Callable:
    """Add a function to the zoo, once for each name; with several names it gets the name too."""

    def add(write: Callable[[Path], object]) -> Callable[[Path], object]:
        ZOO.extend(Bomb(name, kind, write, harmless) for name in names)
        return write

    return add


def sparse(path: Path, head: bytes = b"", size: int = SPARSE, tail: bytes = b"") -> None:
    """Write a file of zeros that takes no space, with some bytes at its begin and end."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
        if tail:
            file.seek(size - len(tail))
            file.write(tail)


def replace_by_sparse(path: Path, head: bytes = b"") -> None:
    """Replace a file of a valid folder by a sparse one."""
    path.unlink(missing_ok=True)
    sparse(path, head)


def replace_by_fifo(path: Path) -> None:
    """Replace a file of a valid folder by a FIFO, which blocks who opens it."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def replace_by_device(path: Path) -> None:
    """Replace a file of a valid folder by a link to a device without an end."""
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def deep_json(depth: int = 200_000) -> bytes:
    """JSON whose nesting exceeds every stack."""
    return b'{"a":[' * depth + b"1" + b"]}" * depth


def deflated_zeros(size: int, unit: int = 64 << 20, byte: bytes = b"\0") -> bytes:
    """Return the raw deflate stream of a number of equal bytes, made in no time.

    A unit that ends with a full flush can be repeated.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(byte * unit) + packer.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    return block * (size // unit) + last.compress(byte * (size % unit)) + last.flush()


class RawZip:
    """A writer of zip archives whose records need not be true."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.central = bytearray()
        self.count = 0

    def add(
        self, name: str, data: bytes, *, size: int | None = None, method: int = 0,
        flags: int = 0, crc: int | None = None, at: int | None = None,
    ) -> int:  # fmt: skip
        """Add a member, and return its offset; `at` is that of an earlier one to share."""
        text = name.encode()
        size = len(data) if size is None else size
        crc = zlib.crc32(data) if crc is None else crc
        fields = (20, flags, method, 0, 33, crc, len(data), size, len(text))
        if at is None:
            at = len(self.body)
            self.body += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", *fields, 0) + text + data
        self.central += struct.pack(
            "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, *fields, 0, 0, 0, 0, 0, at
        )
        self.central += text
        self.count += 1
        return at

    def bytes(self) -> bytes:
        """Return the archive."""
        count = min(self.count, 0xFFFF)
        where, size = len(self.body), len(self.central)
        return bytes(
            self.body + self.central
            + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size, where, 0)
        )  # fmt: skip


def npy_header(shape: str, dtype: str = "'<f4'") -> bytes:
    """Return the header of a .npy file."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode("latin1")


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """Write an archive of stored members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def inflating_zip(path: Path, members: dict[str, tuple[bytes, int]]) -> None:
    """Write an archive whose members begin with some bytes, and go on with that many zeros."""
    archive = RawZip()
    for name, (head, size) in members.items():
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        stream = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + deflated_zeros(size)
        # Who reads to the end to find the checksum wrong has read it all.
        crc = 1 if size else zlib.crc32(head)
        archive.add(name, stream, size=min(len(head) + size, 0xFFFFFFFE), method=8, crc=crc)
    path.write_bytes(archive.bytes())

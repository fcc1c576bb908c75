"""Zip archives: their members are counted, measured and compared before one is read."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit._untrusted.limits import (
    FREE_UNFOLDED_BYTES,
    MAX_ZIP_DIRECTORY_BYTES,
    MAX_ZIP_MEMBERS,
    MAX_ZIP_RATIO,
    MIB,
)
from cnnkit._untrusted.regular_files import FileRange, open_regular_file
from cnnkit.errors import DataError

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1
# Fixed bytes of the header before each member; its name and its extra field follow.
HEADER_BYTES = 30
HEADER_MARK = b"PK\x03\x04"


@contextmanager
def open_zip(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose members are safe to read one by one.

    Raises:
        DataError: If it cannot be read or is damaged; has more than `MAX_ZIP_MEMBERS` members, two
            of the same name or overlapping ones; is encrypted; has another compression than
            Deflate; or unfolds to more than `MAX_ZIP_RATIO` times its size.
    """
    with open_regular_file(path) as file:
        view = FileRange(file, origin=path, max_read=MAX_ZIP_DIRECTORY_BYTES)
        with damage_as_error(path):
            archive = zipfile.ZipFile(view)
        archive.filename = str(path)
        _check_members(path, archive, view.seek(0, io.SEEK_END))
        view.max_read = None
        with archive:
            yield archive


def check_paths(archive: zipfile.ZipFile) -> None:
    """Check that the members of an archive of `open_zip` would be unpacked below one folder.

    Raises:
        DataError: If the name of a member is an absolute path, or leads upwards.
    """
    for info in archive.infolist():
        parts = PureWindowsPath(info.orig_filename)  # Slashes of both kinds.
        if parts.anchor or ".." in parts.parts:
            raise DataError(
                f"{archive.filename} has a member that lies outside of the archive",
                received=shorten(info.orig_filename),
            )


def read_member(archive: zipfile.ZipFile, name: str, *, max_bytes: int) -> bytes:
    """Read a whole member of an archive of `open_zip`.

    Raises:
        DataError: If there is none of that name, it is larger than `max_bytes`, or damaged.
    """
    origin = f"{name} in {archive.filename}"
    with damage_as_error(origin):
        info = _info(archive, name)
        if info.file_size > max_bytes:
            raise DataError(
                f"{origin} is too large",
                expected=f"at most {max_bytes:,} bytes",
                received=f"{info.file_size:,}",
            )
        data = archive.read(info)
        if len(data) != info.file_size:
            raise DataError(f"{origin} is damaged or incomplete")
        return data


@contextmanager
def open_member(archive: zipfile.ZipFile, name: str) -> Iterator[BinaryIO]:
    """Open a member of an archive of `open_zip` for reading at any position.

    A compressed member is unfolded into a temporary file, because every step back in it would
    unfold it again.

    Raises:
        DataError: If there is none of that name, or it is damaged.
    """
    info = _info(archive, name)
    if info.compress_type == zipfile.ZIP_STORED:
        start = stored_start(archive, info)
        yield FileRange(_file_of(archive), start, info.file_size)  # type: ignore[misc]
        return
    with tempfile.TemporaryFile() as unfolded:
        with damage_as_error(f"{name} in {archive.filename}"), archive.open(info) as member:
            while block := member.read(MIB):
                unfolded.write(block)
        unfolded.seek(0)
        yield unfolded


def stored_start(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Return the first byte, in the archive, of a member that is not compressed.

    Raises:
        DataError: If it is compressed, or its header is damaged.
    """
    origin = f"{info.filename} in {archive.filename}"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise DataError(f"{origin} must not be compressed")
    file = _file_of(archive)
    file.seek(info.header_offset)
    # The header ends with the lengths of the name and of the extra field.
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(HEADER_MARK):
        raise DataError(f"{origin} is damaged or incomplete")
    lengths = sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    start = info.header_offset + HEADER_BYTES + lengths
    if start + info.file_size > file.seek(0, io.SEEK_END):
        raise DataError(f"{origin} is damaged or incomplete")
    return start


def _file_of(archive: zipfile.ZipFile) -> BinaryIO:
    file = archive.fp
    if file is None:
        raise DataError(f"{archive.filename} was closed")
    return file  # type: ignore[return-value]


def _info(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(name)
    except KeyError as error:
        raise DataError(f"{archive.filename} has no {name}") from error


def _check_members(path: str | Path, archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    if len(members) > MAX_ZIP_MEMBERS:
        raise DataError(
            f"{path} has too many members",
            expected=f"at most {MAX_ZIP_MEMBERS:,}",
            received=f"{len(members):,}",
        )
    if len({info.filename for info in members}) < len(members):
        raise DataError(f"{path} is damaged: it has two members of the same name")
    end = 0
    for info in sorted(members, key=lambda one: one.header_offset):
        if info.flag_bits & ENCRYPTED:
            raise DataError(f"{path} is encrypted", hint="Unpack it, and pack it without password")
        if info.compress_type not in METHODS:
            raise DataError(
                f"{path} has a compression that is not read",
                expected="Deflate, or none",
                received=f"method {info.compress_type} of {shorten(info.filename)}",
            )
        if info.header_offset < end:
            raise DataError(
                f"{path} is damaged: its members overlap", received=shorten(info.filename)
            )
        end = info.header_offset + HEADER_BYTES + len(info.orig_filename) + info.compress_size
    if end > size:
        raise DataError(f"{path} is damaged or incomplete")
    unfolded = sum(info.file_size for info in members)
    allowed = max(FREE_UNFOLDED_BYTES, MAX_ZIP_RATIO * size)
    if unfolded > allowed:
        raise DataError(
            f"{path} unfolds to an absurd size",
            expected=f"at most {MAX_ZIP_RATIO} times its own {size:,} bytes",
            received=f"{unfolded:,}",
            hint="If you trust it, unpack it, and pack it again without compression",
        )

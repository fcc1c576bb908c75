"""Opening of regular files: no pipe, device or folder, and not more bytes than stated."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from cnnkit._untrusted.limits import MAX_LINE_BYTES, MAX_TEXT_BYTES
from cnnkit.errors import DataError

# Without it, opening a pipe waits for a writer.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular_file(
    path: str | Path, *, max_bytes: int | None = None, is_listed: bool = False
) -> BinaryIO:
    """Open a regular file for reading; links to one are followed.

    Args:
        path: The file.
        max_bytes: Largest size; None for any, where the reader itself reads only parts.
        is_listed: Whether it was listed as a regular file a moment ago. It is opened without a
            look at its kind before, and without a buffer: half the time, for many small reads.

    Raises:
        DataError: If it is missing, unreadable, not a regular file, or larger than `max_bytes`.
    """
    try:
        # Opening a device can have effects, so its kind is looked at before.
        if not is_listed:
            _check_kind(path, Path(path).stat())
        file = os.fdopen(os.open(path, OPEN_FLAGS), "rb", buffering=0 if is_listed else -1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{path} cannot be read", received=reason or error) from error
    try:
        status = os.fstat(file.fileno())
        _check_kind(path, status)
        if max_bytes is not None and status.st_size > max_bytes:
            raise _too_large(path, max_bytes, status.st_size)
    except BaseException:
        file.close()
        raise
    return file


def read_bytes(path: str | Path, *, max_bytes: int) -> bytes:
    """Read a whole regular file.

    Raises:
        DataError: As `open_regular_file`.
    """
    with open_regular_file(path, max_bytes=max_bytes) as file:
        try:
            # Files of /proc have no size until they are read.
            data = file.read(max_bytes + 1)
        except OSError as error:
            raise DataError(f"{path} cannot be read", received=error.strerror or error) from error
    if len(data) > max_bytes:
        raise _too_large(path, max_bytes, len(data))
    return data


def read_text(path: str | Path, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a whole text file in UTF-8.

    Raises:
        DataError: As `open_regular_file`; or if it is not UTF-8, or has zero bytes.
    """
    return decode_utf8(read_bytes(path, max_bytes=max_bytes), path)


def decode_utf8(data: bytes, origin: str | Path) -> str:
    """Return bytes of a file as text in UTF-8, without a byte order mark.

    Args:
        data: The bytes.
        origin: The file, for the message.

    Raises:
        DataError: If they are not UTF-8, or have zero bytes.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{origin} must be text in UTF-8",
            received=f"the byte 0x{data[error.start]:02x} in line {line}",
        ) from error
    if "\0" in text:
        raise DataError(f"{origin} must be text in UTF-8", received="zero bytes")
    return text


def _check_kind(path: str | Path, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
    raise DataError(f"{path} must be a regular file", received=kind)


def _too_large(path: str | Path, limit: int, size: int) -> DataError:
    return DataError(
        f"{path} is too large", expected=f"at most {limit:,} bytes", received=f"{size:,}"
    )


class FileRange(io.RawIOBase):
    """A part of an open file as a file of its own, whose single reads may be limited.

    Parsers that read what a length in the file says ask for all of it at once.

    Args:
        file: The open file; it is not closed together with this one.
        start: First byte of the part.
        size: Number of its bytes; None for all that follow.
        origin: Its name for messages; None for that of the file.
        max_read: Largest number of bytes in a single read; None for any.
        max_total: Largest number of bytes in all reads together; None for any.

    Attributes:
        max_read: As above; it may be changed.
        max_total: As above; it may be changed.
    """

    def __init__(
        self,
        file: BinaryIO,
        start: int = 0,
        size: int | None = None,
        *,
        origin: str | Path | None = None,
        max_read: int | None = None,
        max_total: int | None = None,
    ) -> None:
        self._file, self._start = file, start
        self._size = file.seek(0, os.SEEK_END) - start if size is None else size
        self._place = 0
        self._origin = origin or getattr(file, "name", "The file")
        self._total = 0
        self.max_read, self.max_total = max_read, max_total

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position within the part."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position within the part, and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._place = base + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Read bytes, all of the rest for -1.

        Raises:
            DataError: If they are more than `max_read`.
        """
        rest = max(0, self._size - self._place)
        asked = rest if size is None or size < 0 else size
        self._check(asked)
        self._file.seek(self._start + self._place)
        data = self._file.read(min(asked, rest))
        self._place += len(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        """Read up to the end of a line.

        Raises:
            DataError: If the line is longer than `MAX_LINE_BYTES`.
        """
        start = self._place
        self._file.seek(self._start + start)
        data = self._file.read(max(0, min(MAX_LINE_BYTES, self._size - start)))
        line, end, _ = data.partition(b"\n")
        if not end and len(data) == MAX_LINE_BYTES:
            raise DataError(f"{self._origin} has an absurdly long line")
        line += end
        line = line if size is None or size < 0 else line[:size]
        self._place = start + len(line)
        return line

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read bytes into a buffer.

        Raises:
            DataError: If they are more than `max_read`.
        """
        view = memoryview(buffer).cast("B")
        self._check(len(view))
        rest = max(0, self._size - self._place)
        self._file.seek(self._start + self._place)
        count = self._file.readinto(view[: min(len(view), rest)])  # type: ignore[attr-defined]
        self._place += count
        return int(count)

    def _check(self, size: int) -> None:
        self._total += size
        if self.max_total is not None and self._total > self.max_total:
            raise DataError(
                f"{self._origin} is read again and again",
                expected=f"at most {self.max_total:,} bytes of its structure",
            )
        if self.max_read is not None and size > self.max_read:
            raise DataError(
                f"{self._origin} states an absurd length",
                expected=f"at most {self.max_read:,} bytes",
                received=f"{size:,}",
            )

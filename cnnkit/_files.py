"""Text files: JSON documents, and lines in the encoding that the file names."""

from __future__ import annotations

import codecs
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cnnkit._staging import NO_LINKS, staged_file, write_errors
from cnnkit._untrusted.limits import MAX_LINE_BYTES, MAX_LINES, MAX_TEXT_BYTES
from cnnkit._untrusted.regular_files import read_bytes
from cnnkit.errors import DataError, UsageError

# Marks at the beginning of a file that name its encoding. That of UTF-32 begins with UTF-16's.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def make_folder(path: Path) -> None:
    """Create a folder if it does not exist.

    Raises:
        RunError: If it cannot be created.
    """
    with write_errors(path):
        path.mkdir(exist_ok=True)


def refuse_private_key(name: str, value: object) -> None:
    """Refuse a private key where the path of its file belongs, without repeating it.

    Args:
        name: The argument or option, as the error names it.
        value: What was given: a path, a text or bytes.

    Raises:
        UsageError: If the value contains "PRIVATE KEY", as keys in PEM do.
    """
    if "PRIVATE KEY" in str(value):
        raise UsageError(
            f"{name} must be the path of a file, received the text of a private key",
            hint="Write the key to a file that only its owner can read, and give its path",
        )


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file and flush it to disk.

    Raises:
        RunError: If the file cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_LINKS
    with write_errors(path), os.fdopen(os.open(path, flags, 0o666), "ab") as file:
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically."""
    with staged_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


def json_text(document: object, *, indent: int | None = None) -> str:
    """Return a document as JSON; a number that is not finite becomes null, because JSON has none.

    Args:
        document: Mappings, lists, tuples, texts, numbers (NumPy's too), booleans and None.
        indent: Number of spaces of a level; None writes one line.

    Example:
        >>> json_text({"loss": float("nan"), "epoch": 1})
        '{"loss": null, "epoch": 1}'
    """
    return json.dumps(_without_infinities(document), indent=indent, allow_nan=False)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_infinities(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(one) for one in value]
    if type(value).__module__ == "numpy":  # Not imported: the file needs no NumPy otherwise.
        return _without_infinities(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def join_lines(lines: Iterable[str]) -> str:
    r"""Return the content of a text file of `lines`, for example of class names.

    Raises:
        DataError: If a line contains a line break, so that it would be read as two.

    Example:
        >>> join_lines(["cat", "dog"])
        'cat\ndog\n'
    """
    lines = list(lines)
    for line in lines:
        if "\n" in line or "\r" in line:
            raise DataError(f"The name {line!r} contains a line break", expected="one line")
    return "".join(f"{line}\n" for line in lines)


def read_lines(path: Path) -> list[str]:
    r"""Read the lines of a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Lines end in `\n`, `\r\n` or `\r`. Other characters that `str.splitlines` takes for a line
    break can be part of a name.

    Raises:
        DataError: If the file cannot be read, its encoding cannot be known, or it is larger than
            `MAX_TEXT_BYTES`, `MAX_LINES` or `MAX_LINE_BYTES`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.txt"
        ...     _ = path.write_bytes("\ufeffcat\r\ndog\r\n".encode("utf-16-le"))
        ...     read_lines(path)
        ['cat', 'dog']
    """
    data = read_bytes(path, max_bytes=MAX_TEXT_BYTES)
    marked = (name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark))
    encoding = next(marked, "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} must be text in UTF-8, or in UTF-16 with a byte order mark",
            received=f"the byte 0x{data[error.start]:02x} in line {line}",
            hint=f"Save it in UTF-8, for example with `iconv -f LATIN1 -t UTF-8 {path}`",
        ) from error
    if "\0" in text:
        raise DataError(
            f"{path} must be text in UTF-8, or in UTF-16 with a byte order mark",
            received="zero bytes",
            hint="Save it in UTF-8",
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    count = text.count("\n")
    if count > MAX_LINES:
        raise DataError(f"{path} has too many lines", expected=MAX_LINES, received=f"{count:,}")
    lines = text.removesuffix("\n").split("\n") if text else []
    if max(map(len, lines), default=0) > MAX_LINE_BYTES:
        raise DataError(
            f"{path} is not a text of lines", expected=f"at most {MAX_LINE_BYTES:,} characters each"
        )
    return lines

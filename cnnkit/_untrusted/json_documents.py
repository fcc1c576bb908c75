"""JSON: size, depth, repeated names and numbers without a value are checked; fields have types."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit._untrusted.limits import MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_TEXT_LENGTH
from cnnkit._untrusted.regular_files import decode_utf8, read_bytes
from cnnkit.errors import DataError

# A text of JSON, which may hold brackets, or a bracket outside of texts.
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
# Largest integer that every reader of JSON holds exactly, and NumPy's int64 too.
MAX_INTEGER = 2**53


def read_json(path: str | Path, *, max_bytes: int = MAX_JSON_BYTES, nan: bool = False) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        max_bytes: Largest size.
        nan: Whether NaN and Infinity are accepted, which Python writes and JSON does not have.

    Raises:
        DataError: If it is not a regular file, too large, not UTF-8, not JSON, or too deep; has an
            object with a name twice, or a number outside the range of floats.
    """
    return parse_json(read_bytes(path, max_bytes=max_bytes), path, max_bytes=max_bytes, nan=nan)


def parse_json(
    data: str | bytes, origin: str | Path, *, max_bytes: int = MAX_JSON_BYTES, nan: bool = False
) -> Any:
    """Parse JSON.

    Args:
        data: The document.
        origin: The file or other source, for messages.
        max_bytes: Largest number of bytes or characters.
        nan: Whether NaN and Infinity are accepted.

    Raises:
        DataError: As `read_json`.

    Example:
        >>> parse_json('{"epoch": 1}', "metrics.jsonl")
        {'epoch': 1}
    """
    if len(data) > max_bytes:
        raise DataError(
            f"{origin} is too large", expected=f"at most {max_bytes:,} bytes of JSON",
            received=f"{len(data):,}",
        )  # fmt: skip
    text = decode_utf8(data, origin) if isinstance(data, bytes) else data
    _check_depth(text, origin)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise ValueError(f"an object with the name {shorten(name, 80)!r} twice")
            found[name] = value
        return found

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError(f"the number {shorten(number, 20)}")
        return value

    constant = float if nan else finite
    with damage_as_error(origin, problem="is not valid JSON"):
        return json.loads(
            text, object_pairs_hook=unique, parse_float=finite, parse_constant=constant
        )


def _check_depth(text: str, origin: str | Path) -> None:
    depth = 0
    for match in TOKEN.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
            if depth > MAX_JSON_DEPTH:
                raise DataError(
                    f"{origin} is not a sensible JSON document",
                    expected=f"at most {MAX_JSON_DEPTH} lists and objects inside each other",
                )
        elif token in "]}":
            depth -= 1


class JsonFields:
    """The fields of a JSON object, with their types and ranges.

    Args:
        document: What `read_json` returned.
        origin: The file, for messages.
        place: Name of the object within the file, for messages; the names of fields follow it.

    Raises:
        DataError: If `document` is not an object. The methods raise it for a field that is missing,
            has no default, or is of another type or out of range.

    Example:
        >>> fields = JsonFields({"images": 3, "split": "test"}, "index.json")
        >>> fields.integer("images", minimum=1), fields.text("split")
        (3, 'test')
        >>> fields.integer("images", maximum=2)
        Traceback (most recent call last):
        cnnkit.errors.DataError: `images` in index.json must be an integer from 0 to 2. Received: 3.
    """

    _required = object()

    def __init__(self, document: Any, origin: str | Path, place: str = "") -> None:
        if not isinstance(document, Mapping):
            name = f"`{place}` in {origin}" if place else f"{origin}"
            raise DataError(f"{name} must be a JSON object", received=_kind(document))
        self.document, self.origin, self.place = document, origin, place

    def __contains__(self, name: str) -> bool:
        return name in self.document

    def __iter__(self) -> Iterator[str]:
        return iter(self.document)

    def integer(
        self,
        name: str,
        *,
        minimum: int = 0,
        maximum: int = MAX_INTEGER,
        default: Any = _required,
    ) -> int:
        """Return an integer; floats and booleans are refused."""
        value = self._get(name, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        if not _is_integer(value, minimum, maximum):
            raise self.wrong(name, f"an integer from {minimum:,} to {maximum:,}")
        return value  # type: ignore[no-any-return]

    def number(
        self,
        name: str,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
        default: Any = _required,
    ) -> float:
        """Return a finite number as float."""
        value = self._get(name, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        if not _is_number(value, minimum, maximum):
            bounds = "" if minimum == -math.inf else f" of at least {minimum:g}"
            bounds += "" if maximum == math.inf else f" of at most {maximum:g}"
            raise self.wrong(name, f"a finite number{bounds}")
        return float(value)

    def numbers(
        self,
        name: str,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
        count: int,
    ) -> tuple[float, ...]:
        """Return a list of `count` finite numbers as floats."""
        values = self.items(name, max_count=count)
        if len(values) != count or not all(_is_number(one, minimum, maximum) for one in values):
            raise self.wrong(name, f"a list of {count} numbers from {minimum:g} to {maximum:g}")
        return tuple(map(float, values))

    def boolean(self, name: str, *, default: Any = _required) -> bool:
        """Return true or false."""
        value = self._get(name, default)
        if value is not default and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value  # type: ignore[no-any-return]

    def text(
        self, name: str, *, max_length: int = MAX_TEXT_LENGTH, default: Any = _required
    ) -> str:
        """Return a text of at most `max_length` characters."""
        value = self._get(name, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        if not _is_text(value, max_length):
            raise self.wrong(name, f"a text of at most {max_length:,} characters")
        return value  # type: ignore[no-any-return]

    def texts(
        self,
        name: str,
        *,
        max_count: int = MAX_INTEGER,
        max_length: int = MAX_TEXT_LENGTH,
        default: Any = _required,
    ) -> tuple[str, ...]:
        """Return a list of texts."""
        expected = f"a list of texts of at most {max_length:,} characters"
        return self._tuple(
            name, default, max_count, lambda one: _is_text(one, max_length), expected
        )

    def integers(
        self,
        name: str,
        *,
        minimum: int = 0,
        maximum: int = MAX_INTEGER,
        max_count: int = MAX_INTEGER,
        default: Any = _required,
    ) -> tuple[int, ...]:
        """Return a list of integers."""
        expected = f"a list of integers from {minimum:,} to {maximum:,}"
        return self._tuple(
            name, default, max_count, lambda one: _is_integer(one, minimum, maximum), expected
        )

    def fields(self, name: str) -> JsonFields:
        """Return an object inside this one."""
        return JsonFields(self._get(name, self._required), self.origin, self._path(name))

    def items(self, name: str, *, max_count: int = MAX_INTEGER) -> list[Any]:
        """Return a list of anything."""
        value = self._get(name, self._required)
        if not isinstance(value, list) or len(value) > max_count:
            raise self.wrong(name, "a list")
        return value

    def wrong(self, name: str, expected: str) -> DataError:
        """Return the error for a field whose value is not what is `expected`."""
        return DataError(
            f"`{self._path(name)}` in {self.origin} must be {expected}",
            received=_kind(self.document.get(name)),
        )

    def _tuple(
        self,
        name: str,
        default: Any,
        max_count: int,
        is_valid: Callable[[Any], bool],
        expected: str,
    ) -> tuple[Any, ...]:
        values = self._get(name, default)
        if values is default:
            return values  # type: ignore[no-any-return]
        if (
            not isinstance(values, list)
            or len(values) > max_count
            or not all(map(is_valid, values))
        ):
            raise self.wrong(name, expected)
        return tuple(values)

    def _path(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name

    def _get(self, name: str, default: Any) -> Any:
        if name not in self.document and default is self._required:
            raise DataError(f"{self.origin} has no `{self._path(name)}`")
        return self.document.get(name, default)


def _is_integer(value: Any, minimum: int, maximum: int) -> bool:
    return type(value) is int and minimum <= value <= maximum


def _is_number(value: Any, minimum: float, maximum: float) -> bool:
    is_finite = type(value) in (int, float) and abs(value) <= 1.7e308
    return is_finite and bool(minimum <= value <= maximum)


def _is_text(value: Any, max_length: int) -> bool:
    # A lone surrogate of JSON cannot be written or printed.
    return (
        isinstance(value, str)
        and len(value) <= max_length
        and "\0" not in value
        and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))
    )


def _kind(value: Any) -> str:
    return json.dumps(value[:80]) if isinstance(value, str) else shorten(value, 80)

"""One clear error in place of whatever a parser raises for a damaged or prepared file."""

from __future__ import annotations

import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnkit.errors import CnnkitError, DataError, truncate

# What the parsers of NumPy, h5py, zipfile, zlib, json and protobuf raise because of a file.
# RuntimeError includes RecursionError and NotImplementedError, LookupError KeyError and IndexError.
DAMAGE_ERRORS = (
    ArithmeticError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
SHOWN_CHARACTERS = 200


@contextmanager
def damage_as_error(
    path: str | Path,
    error: type[CnnkitError] = DataError,
    problem: str = "is damaged or incomplete",
) -> Iterator[None]:
    """Raise one clear error for whatever reading a file raises.

    Args:
        path: The file, for the message.
        error: Class of the error. A `DataError` of this package is raised anew as this class, with
            the same words; other errors of cnnkit pass unchanged.
        problem: What is wrong with the file, after its name.

    Raises:
        CnnkitError: An `error`, if the block raises one of `DAMAGE_ERRORS` or a `DataError`.

    Example:
        >>> with damage_as_error("model.keras"):
        ...     {}["layers"]
        Traceback (most recent call last):
        cnnkit.errors.DataError: model.keras is damaged or incomplete. Received: KeyError: 'layers'.
    """
    try:
        yield
    except DataError as found:
        if isinstance(found, error):
            raise
        raise error(
            found.problem, expected=found.expected, received=found.received, hint=found.hint
        ) from found
    except CnnkitError:
        raise
    except DAMAGE_ERRORS as found:
        raise error(f"{path} {problem}", received=_in_words(found)) from found


def shorten(value: object, characters: int = SHOWN_CHARACTERS) -> str:
    """Return a value of a file for a message, cut after some characters.

    Example:
        >>> shorten("x" * 1000, 5)
        'xxxxx... (1,000 characters)'
    """
    if isinstance(value, (list, tuple, dict)):
        # The text of nested lists may be long, or too deep to make.
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    if isinstance(value, int) and value.bit_length() > characters:
        return "an integer of hundreds of digits"
    return truncate(str(value), characters)


def _in_words(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, (ValueError, zipfile.BadZipFile)) and text:
        return shorten(text)
    return shorten(f"{type(error).__name__}: {text}" if text else type(error).__name__)

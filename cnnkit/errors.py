"""One error family: what is wrong, what was expected, what was received, what to do."""

from __future__ import annotations

import difflib
import importlib.util
import re
import warnings
from collections.abc import Iterable, Sequence

# Characters of one part of an error, at most: names and lists of names come from files too.
MAX_PART = 4000

# Letters and marks that Unicode counts as printable, although nothing or a blank is shown.
_BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)


class CnnkitError(Exception):
    """Work that could not be done, told in one line.

    Args:
        problem: What is wrong, as a sentence without its full stop.
        expected: What would have been right.
        received: What came instead.
        hint: The next step for the reader.

    Example:
        >>> str(CnnkitError("No such folder", received="data/", hint="Create it"))
        'No such folder. Received: data/. Create it.'
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        received: object = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.expected = expected
        self.received = received
        self.hint = hint
        parts = [
            problem,
            None if expected is None else f"Expected: {expected}",
            None if received is None else f"Received: {received}",
            hint,
        ]
        super().__init__(" ".join(_sentence(part) for part in parts if part))


def _sentence(text: str) -> str:
    # Truncated before it is split: a text of 100 MB would become millions of words.
    text = escape_controls(" ".join(truncate(text, MAX_PART).split()))
    return text if text.endswith((".", "?", "!")) else f"{text}."


def escape_controls(text: str) -> str:
    r"""Returns a text for one line of a terminal, a log or a table.

    Names in files and texts of servers may hold escape sequences, line breaks, and marks that
    change the direction of the text or show nothing. They are replaced by their escapes.

    Example:
        >>> escape_controls("conv\x1b[2J\rfc\u202e")
        'conv\\x1b[2J\\rfc\\u202e'
    """
    if text.isprintable() and not _BLANKS.search(text):
        return text
    return "".join(c if c.isprintable() and not _BLANKS.match(c) else ascii(c)[1:-1] for c in text)


def truncate(text: str, most: int) -> str:
    """Returns the first `most` characters of a text, followed by its length if it is longer.

    Example:
        >>> truncate("cat", 3), truncate("a" * 5000, 3)
        ('cat', 'aaa... (5,000 characters)')
    """
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def warn(text: str, category: type[Warning] = UserWarning, *, stacklevel: int = 1) -> None:
    """Issues a warning whose text is one line without control characters.

    Args:
        text: The warning.
        category: Its class.
        stacklevel: As for `warnings.warn`.
    """
    warnings.warn(escape_controls(truncate(text, MAX_PART)), category, stacklevel=stacklevel + 1)


class UsageError(CnnkitError, ValueError):
    """The request itself is wrong: an argument, a name, a combination of options."""

    exit_code = 2


class DataError(CnnkitError):
    """A dataset or an image that cannot be used."""


class RunError(CnnkitError):
    """A run folder, a checkpoint or an export that cannot be used or written."""


class AssumptionWarning(UserWarning):
    """A file does not say something that the result depends on, so that a custom decides it."""


def near_names(name: object, known: Sequence[str]) -> list[str]:
    """Returns up to three of the `known` names that are similar to a wrong one, nearest first.

    Example:
        >>> near_names("convv5", ["conv5", "fc6"])
        ['conv5']
    """
    # A name of another type, such as 5, is near to none.
    # One of a hundred characters is none that anybody typed, and takes long to compare.
    if not isinstance(name, str) or len(name) > 100:
        return []
    return difflib.get_close_matches(name, known, n=3, cutoff=0.5)


def unknown_name(kind: str, name: object, known: Iterable[str], *, hint: str = "") -> UsageError:
    """Returns the error for a `name` that is none of the `known` ones, nearest first.

    Example:
        >>> str(unknown_name("layer", "convv5", ["conv5", "fc6"]))
        "Unknown layer 'convv5'. Expected: one of conv5, fc6. Did you mean conv5?"
    """
    known = list(known)
    near = near_names(name, known)
    question = f"Did you mean {' or '.join(near)}?" if near else ""
    advice = " ".join(part for part in (question, hint) if part)
    return UsageError(
        f"Unknown {kind} {name!r}",
        expected=f"one of {', '.join(known)}" if known else None,
        hint=advice or None,
    )


def check_installed(module: str, *, package: str, needed_by: str) -> None:
    """Checks that an optional package is installed, without importing it.

    Args:
        module: Name of its module.
        package: Name under which it is installed.
        needed_by: The argument or class that needs it.

    Raises:
        UsageError: If it is not.

    Example:
        >>> check_installed("numpy", package="numpy", needed_by="plot")
    """
    if importlib.util.find_spec(module) is None:
        raise UsageError(
            f"The package {package}, which `{needed_by}` needs, is not installed",
            hint=f"Install it: pip install {package}",
        )

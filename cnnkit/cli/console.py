"""The terminal of a command: progress, notes, tables and JSON documents."""

from __future__ import annotations

import argparse
import contextlib
import enum
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cnnkit._files import json_text, read_lines
from cnnkit.cli.option_names import in_options
from cnnkit.errors import RunError, UsageError, escape_controls, truncate

# Characters of a line and of a name in a column, at most: a label of 1 MB would pad every row.
MAX_LINE = 20_000
MAX_CELL = 200
# Exit code after Ctrl-C.
INTERRUPTED = 130
# Time between two lines of progress where there is no terminal.
LINE_SECONDS = 30.0

if TYPE_CHECKING:
    from tqdm import tqdm

    from cnnkit.data import Dataset


@contextlib.contextmanager
def progress_bar(
    total: int, label: str | None = None, *, resumed: bool = False, unit: str = "images"
) -> Iterator[Callable[..., object]]:
    """Show a progress bar on standard error; see `open_bar`.

    Args:
        total: Number of images.
        label: Text before the bar.
        unit: What is counted, where it is not images.
        resumed: Whether the first call of the yielded function reports images that an earlier
            process has done, which do not count for the speed.

    Yields:
        A function that takes the number of images done since the last call, by default 1.
    """
    with open_bar(total, label, unit=unit) as bar:
        begun = not resumed or bar.disable

        def update(images: int = 1) -> None:
            nonlocal begun
            if begun:
                bar.update(images)
            else:
                bar.n = bar.last_print_n = bar.initial = images
                if sys.stderr.isatty():
                    bar.refresh()
                begun = True

        yield update


def request_bar(total: int, label: str) -> contextlib.AbstractContextManager[Callable[..., object]]:
    """Show a progress bar of requests to an exported network; see `progress_bar`."""
    return progress_bar(total, label, unit="requests")


def open_bar(
    total: int,
    label: str | None = None,
    *,
    initial: int = 0,
    scale: bool = False,
    unit: str = "images",
) -> tqdm:
    """Return a progress bar on standard error.

    Where that is no terminal, a line is printed every 30 s instead, and none before.

    Args:
        total: Number of images.
        label: Text before the bar.
        initial: Number of images that are done already.
        scale: Whether large numbers are shortened, as in 12.3k.
        unit: What is counted, where it is not images.
    """
    # Imported here, because `cnnkit query` works without tqdm.
    from tqdm import tqdm

    lines: dict[str, Any] = {}
    if not sys.stderr.isatty():
        lines = {
            "file": _Lines(),
            "bar_format": ("{desc}: " if label else "")
            + "{n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left"
            "{postfix}",
            "mininterval": LINE_SECONDS,
            "delay": LINE_SECONDS,
            "miniters": 1,
        }
    return tqdm(
        total=total,
        desc=None if label is None else cell(label),
        initial=initial,
        unit=f" {unit}",
        unit_scale=scale,
        leave=False,
        disable=is_quiet(),
        **lines,
    )


class _Lines:
    """A stream for tqdm that prints each state of a bar as a line of its own."""

    def write(self, text: str) -> None:
        """Print a line, without the return and the blanks that redraw a bar."""
        if text.strip():
            print_error(text.strip())

    def flush(self) -> None:
        """Do nothing: lines are flushed."""


def print_line(text: str, file: TextIO | None = None) -> None:
    """Print one line, above a progress bar if one is shown.

    Texts of files and servers are part of most lines. Escape sequences, line breaks and invisible
    characters are printed as escapes, so that they can neither make a line nor hide one.

    Args:
        text: The line. Several lines are printed by several calls, or by `print_table`.
        file: Where to; standard output by default.
    """
    file = sys.stdout if file is None else file
    text = escape_controls(truncate(text, MAX_LINE))
    # A bar is shown only if something has imported tqdm.
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    with contextlib.nullcontext() if tqdm is None else tqdm.external_write_mode(file=file):
        print_text(text, file)


def print_text(text: str, file: TextIO) -> None:
    """Print a text of cnnkit, without names of others, and a line break at once.

    Raises:
        BrokenPipeError: If the reader of the stream is gone.
        RunError: If standard output cannot be written. On standard error nothing could tell it.
    """
    try:
        print(text, file=file, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(file)
        if file is not sys.stderr:
            raise output_error(error) from error


def output_error(error: OSError) -> RunError:
    """Return the error for standard output that cannot be written."""
    return RunError(
        f"Standard output could not be written: {error.strerror or error}",
        hint="Make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None,
    )


def discard(stream: TextIO) -> None:
    """Send what is written to a stream from now on, and what it still holds, nowhere.

    Python writes what is left in the buffer when it exits, and would fail again.
    """
    with contextlib.suppress(OSError, ValueError):
        empty = os.open(os.devnull, os.O_WRONLY)
        os.dup2(empty, stream.fileno())
        os.close(empty)


def open_standard_streams() -> None:
    """Make the standard streams usable: one that is closed leads nowhere, and none is strict.

    Without this, the first file that is opened would take the number of a closed stream, and get
    the log that TensorFlow writes to it. Characters that the terminal's encoding lacks are escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Takes the lowest free number, which is this one.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def print_error(text: str) -> None:
    """Print a line on standard error, with options in place of arguments of Python."""
    print_line(in_options(text), sys.stderr)


def print_note(text: str) -> None:
    """Print a note on standard error, unless `--quiet` is given."""
    if not is_quiet():
        print_error(f"cnnkit: note: {text}")


def print_detail(text: str) -> None:
    """Print a line on standard error if `--verbose` is given."""
    if _detail is Detail.VERBOSE:
        print_error(f"cnnkit: {text}")


class Detail(enum.Enum):
    """How much a command prints beside its result: `--quiet`, nothing or `--verbose`."""

    QUIET = enum.auto()
    NORMAL = enum.auto()
    VERBOSE = enum.auto()


_detail = Detail.NORMAL


def set_detail(detail: Detail) -> None:
    """Set how much the running command prints."""
    global _detail
    _detail = detail


def is_quiet() -> bool:
    """Return whether the running command prints results and errors only."""
    return _detail is Detail.QUIET


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows of the same fields as a table with a header."""
    for line in table(rows):
        print_line(line)


class LogFormatter(logging.Formatter):
    """A formatter whose messages are one line each: they quote names of clients and files."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line of a record."""
        return escape_controls(truncate(super().formatMessage(record), MAX_LINE))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the lines of a traceback."""
        return "\n".join(map(escape_controls, super().formatException(ei).split("\n")))


def print_left_out(dataset: Dataset) -> None:
    """Print on standard error how many files of a dataset are left out and why, if any are."""
    if text := dataset.describe_left_out():
        print_note(f"{dataset.spec}: {text}")


def print_json(document: object, *, indent: int | None = None) -> None:
    """Print a JSON document on standard output."""
    # JSON escapes control characters and all that is not ASCII itself.
    print_text(json_text(document, indent=indent), sys.stdout)


def add_json_argument(parser: argparse._ActionsContainer, help: str | None = None) -> None:
    """Declare the option `--json`."""
    parser.add_argument("--json", action="store_true", help=help or "print one JSON document")


def table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the lines of a table with a header; numbers are aligned right."""
    cells = [[cell(name) for name in rows[0]]]
    cells += [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [_is_number(row) for row in zip(*(row.values() for row in rows), strict=True)]
    lines = []
    for line in cells:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def cell(text: object) -> str:
    r"""Return a text as it is printed in a column: escaped, and shortened if it is very long.

    Example:
        >>> cell("cat\ndog"), len(cell("a" * 10**6))
        ('cat\\ndog', 226)
    """
    return escape_controls(truncate(str(text), MAX_CELL))


def _is_number(values: Iterable[object]) -> bool:
    return all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        for value in values
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return cell(value)


def read_labels(path: str | Path, option: str = "--labels") -> tuple[str, ...]:
    """Read class names from a text file, one a line.

    Spaces around a name and blank lines at the end do not count.

    Raises:
        UsageError: If there is no such file, or a line between two names is blank.
        DataError: If the encoding of the file cannot be known.
    """
    if not Path(path).is_file():
        raise UsageError(
            f"{option} must be an existing file",
            expected="class names, one a line",
            received=path,
        )
    names = [line.strip() for line in read_lines(Path(path))]
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        raise UsageError(
            f"{option} must hold a class name in every line",
            expected="class names, one a line",
            received=f"{path}, blank in line {names.index('') + 1 if names else 1}",
        )
    return tuple(names)

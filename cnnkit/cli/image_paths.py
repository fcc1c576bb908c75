"""The images that commands take, and the lines of what was found in them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cnnkit._file_tree import count_left_out, find_image_files, printable_name
from cnnkit.cli.console import (
    cell,
    print_error,
    print_json,
    print_line,
    print_note,
    progress_bar,
)
from cnnkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from cnnkit.evaluation.predict import FileResult

_ResultT = TypeVar("_ResultT", bound="FileResult")

# The name of an image and its file or bytes.
NamedImage = tuple[str, Path | bytes]

STDIN = "-"
MAX_COLUMN = 24
# Prefix of a dataset of files, which other commands take.
_FOLDER = "folder:"


def find_images(paths: Sequence[str]) -> list[NamedImage]:
    """Return the images of image files, folders and standard input, `-`.

    How many other files a folder holds is printed on standard error.

    Raises:
        UsageError: If a path does not exist, a folder has no images, or `-` is given twice.
        DataError: If standard input is empty.
    """
    images: list[NamedImage] = []
    for path in paths:
        if path == STDIN:
            if paths.count(STDIN) > 1:
                raise UsageError("`PATH` - must be given once", received=" ".join(paths))
            images.append((STDIN, _read_stdin()))
        elif Path(path).is_dir():
            found, left_out = find_image_files(path)
            if left_out:
                print_note(f"{path}: {count_left_out(left_out)}")
            images += ((printable_name(str(file)), file) for file in found)
        elif Path(path).is_file():
            images.append((printable_name(path), Path(path)))
        else:
            folder = path.removeprefix(_FOLDER)
            is_dataset = folder != path and Path(folder).is_dir()
            raise UsageError(
                "`PATH` must be an existing image file or folder",
                received=path,
                hint=f"Name the folder itself: {folder}" if is_dataset else None,
            )
    return images


def print_results(
    found: Iterable[_ResultT],
    *,
    count: int,
    document: Callable[[_ResultT], object] | None,
    print_one: Callable[[_ResultT], object],
    keep: Callable[[_ResultT], object],
) -> bool:
    """Print what was found in each image file, or on standard error why it could not be read.

    Args:
        found: The results.
        count: How many there are, for the progress.
        document: Returns the JSON document of a result; None if the results are lines.
        print_one: Prints the lines of a result.
        keep: Called with each result of a file that could be read.

    Returns:
        True if a file could not be read.
    """
    failed = False
    with progress_bar(count) as progress:
        for one in found:
            if one.error is not None:
                failed = True
                print_error(f"cnnkit: error: {one.error}")
            else:
                keep(one)
            if document is not None:
                print_json(document(one))
            elif one.error is None:
                print_one(one)
            progress(1)
    return failed


def print_predictions(
    name: str, found: Iterable[tuple[str, float]], class_names: Iterable[str] = ()
) -> None:
    """Print the classes of an image with their probabilities, a line each.

    Args:
        name: Name of the image, in the width of its column.
        found: Classes and probabilities.
        class_names: Names of all classes where they are known: the column of the names is then as
            wide for every image, except for names of more than `MAX_COLUMN` characters.
    """
    rows = [(cell(label), probability) for label, probability in found]
    longest = max((len(cell(name)) for name in class_names), default=0)
    width = max([min(longest, MAX_COLUMN), *(len(label) for label, _ in rows)])
    for label, probability in rows:
        print_line(f"{name}  {label:{width}}  {probability:.4f}")
        name = " " * len(name)


def _read_stdin() -> bytes:
    encoded = sys.stdin.buffer.read()
    if not encoded:
        raise DataError("`PATH` - needs an image on standard input", received="0 bytes")
    return encoded
